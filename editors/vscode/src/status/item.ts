// The status bar item: how the server is, and whether it completes in the active document.

import {
  type Disposable,
  languages,
  StatusBarAlignment,
  type StatusBarItem,
  type TextEditor,
  ThemeColor,
  window,
  workspace,
} from 'vscode';

import { type Gemma, NO_MODEL_YET } from '../gemma';
import type { DocumentStatus } from '../protocol';
import { DOCUMENTS } from '../server/documents';
import { costLine, look } from './look';

/** Several causes come at once, such as a start with an open editor; one question is enough. */
const SETTLED_MS = 100;

export class StatusItem implements Disposable {
  private readonly item: StatusBarItem;
  private readonly listening: Disposable[];
  private document: DocumentStatus | undefined;
  private cost: string | undefined;
  private asking: NodeJS.Timeout | undefined;
  private wasRunning = false;

  constructor(private readonly gemma: Gemma) {
    this.item = window.createStatusBarItem('gemma.status', StatusBarAlignment.Right, 100);
    this.item.name = 'Gemma';
    this.item.command = 'gemma.showMenu';
    this.listening = [
      this.item,
      gemma.onDidChangeStatus(() => this.statusChanged()),
      gemma.onDidComplete((cost) => {
        this.cost = costLine(cost) ?? this.cost;
        this.draw();
      }),
      window.onDidChangeActiveTextEditor(() => this.askSoon()),
      workspace.onDidOpenTextDocument((document) => {
        // Another language for the same document closes and opens it.
        if (document === window.activeTextEditor?.document) {
          this.askSoon();
        }
      }),
      workspace.onDidChangeConfiguration((event) => {
        if (event.affectsConfiguration('gemma')) {
          this.askSoon();
        }
      }),
    ];
    this.draw();
    this.item.show();
  }

  dispose(): void {
    clearTimeout(this.asking);
    this.listening.forEach((listener) => listener.dispose());
  }

  private statusChanged(): void {
    const running = isRunning(this.gemma);
    if (running && !this.wasRunning) {
      this.askSoon();
    }
    this.wasRunning = running;
    if (NO_MODEL_YET.has(this.gemma.status.state)) {
      this.cost = undefined;
    }
    this.draw();
  }

  private askSoon(): void {
    clearTimeout(this.asking);
    this.asking = setTimeout(() => void this.ask(), SETTLED_MS);
  }

  private async ask(): Promise<void> {
    if (!isRunning(this.gemma)) {
      return;
    }
    const editor = window.activeTextEditor;
    const document = await documentStatus(this.gemma, editor).catch(() => undefined);
    if (editor === window.activeTextEditor) {
      this.document = document;
      this.draw();
    }
  }

  private draw(): void {
    const { text, tooltip, colour } = look(this.gemma.status, this.document);
    this.item.text = text;
    // The last line changes with every key, which nobody wants to be read to.
    this.item.tooltip = this.cost === undefined ? tooltip : `${tooltip}\n${this.cost}`;
    this.item.accessibilityInformation = { label: `Gemma. ${tooltip} Opens a menu.`, role: 'button' };
    this.item.backgroundColor = colour === undefined ? undefined : new ThemeColor(`statusBarItem.${colour}Background`);
  }
}

/** Whether the server completes in an editor; nothing where it has no say. */
export async function documentStatus(gemma: Gemma, editor: TextEditor | undefined): Promise<DocumentStatus | undefined> {
  if (editor === undefined || languages.match(DOCUMENTS, editor.document) === 0) {
    return undefined;
  }
  const uri = editor.document.uri.toString();
  const { document } = await gemma.request('gemma/status', { textDocument: { uri } });
  return document ?? undefined;
}

function isRunning(gemma: Gemma): boolean {
  return ['loading', 'ready', 'working', 'failed'].includes(gemma.status.state);
}
