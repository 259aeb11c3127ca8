// Inline completions: the language client asks for them and VS Code shows them; here they are watched, so
// that the server's statistics know what was shown and what was taken.

import {
  commands,
  type Disposable,
  type InlineCompletionItem,
  type InlineCompletionList,
  type Position,
  type TextDocument,
  type TextDocumentChangeEvent,
  window,
  workspace,
} from 'vscode';
import type { Middleware } from 'vscode-languageclient';

import { type Gemma, NO_MODEL_YET, type Status } from '../gemma';
import type { AcceptedCompletion } from '../protocol';
import { type Shown, Tracker } from './tracker';

/** The command that the server's items carry. */
const ACCEPTED = 'gemma.didAcceptCompletion';

/** Where something was written. */
interface Place {
  readonly document: TextDocument;
  readonly version: number;
  readonly offset: number;
}

export class Completions implements Disposable {
  private readonly tracker = new Tracker();
  private readonly listening: Disposable[];
  /** Where something was written last, until a server with a model has answered what goes on there. */
  private open: Place | undefined;
  private wasAway = true;

  constructor(private readonly gemma: Gemma) {
    this.listening = [
      commands.registerCommand(ACCEPTED, (accepted: AcceptedCompletion) => this.accepted(accepted)),
      gemma.onDidChangeStatus((status) => void this.askAgain(status).catch(() => {})),
      workspace.onDidChangeTextDocument((event) => this.changed(event)),
    ];
  }

  /** For the language client. */
  readonly provide: NonNullable<Middleware['provideInlineCompletionItems']> = async (
    document,
    position,
    context,
    token,
    next,
  ) => {
    const asked = NO_MODEL_YET.has(this.gemma.status.state) ? undefined : this.open;
    const result = await next(document, position, context, token);
    // A server that ended before it answered gives nothing at all, and may not be known to be gone.
    if (this.open === asked && result) {
      this.open = undefined;
    }
    if (!token.isCancellationRequested) {
      this.show(shownBy(document, position, itemsOf(result)[0]));
    }
    return result;
  };

  dispose(): void {
    this.listening.forEach((listener) => listener.dispose());
  }

  private changed({ document, contentChanges }: TextDocumentChangeEvent): void {
    const taken = this.tracker.change(document.uri.toString(), contentChanges);
    if (taken !== undefined) {
      this.accepted(taken);
    }
    const [change] = contentChanges;
    if (change !== undefined && change.text !== '' && document === window.activeTextEditor?.document) {
      this.open = { document, version: document.version, offset: change.rangeOffset + change.text.length };
    }
  }

  private show(shown: Shown | undefined): void {
    if (this.tracker.show(shown) && shown !== undefined) {
      this.gemma.notify('gemma/didShowCompletion', { id: shown.id });
    }
  }

  private accepted(accepted: AcceptedCompletion): void {
    this.gemma.notify('gemma/didAcceptCompletion', accepted);
    // The walkthrough's step is done.
    void commands.executeCommand('setContext', 'gemma.accepted', true);
  }

  /** VS Code would ask at the next key only, which somebody who waits for the model does not press. */
  private async askAgain({ state }: Status): Promise<void> {
    this.wasAway ||= NO_MODEL_YET.has(state);
    const { open } = this;
    if (state !== 'ready' || !this.wasAway) {
      return;
    }
    this.wasAway = false;
    this.open = undefined;
    if (open === undefined) {
      return;
    }
    const uri = open.document.uri.toString();
    const { document } = await this.gemma.request('gemma/status', { textDocument: { uri } });
    if (isHere(open) && typeof document?.off !== 'string') {
      await commands.executeCommand('editor.action.inlineSuggest.trigger');
    }
  }
}

/** Whether the cursor is still there, and nothing was written since. */
function isHere({ document, version, offset }: Place): boolean {
  const editor = window.activeTextEditor;
  return (
    editor?.document === document &&
    document.version === version &&
    document.offsetAt(editor.selection.active) === offset
  );
}

function itemsOf(result: InlineCompletionItem[] | InlineCompletionList | null | undefined): InlineCompletionItem[] {
  return Array.isArray(result) ? result : (result?.items ?? []);
}

function shownBy(document: TextDocument, position: Position, item: InlineCompletionItem | undefined): Shown | undefined {
  const accepted: AcceptedCompletion | undefined = item?.command?.arguments?.[0];
  if (item === undefined || accepted === undefined || typeof item.insertText !== 'string') {
    return undefined;
  }
  const offset = document.offsetAt(position);
  const replaced = item.range === undefined ? 0 : offset - document.offsetAt(item.range.start);
  return { id: accepted.id, uri: document.uri.toString(), offset, text: item.insertText.slice(replaced) };
}
