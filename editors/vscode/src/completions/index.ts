// Inline completions: the language client asks for them and VS Code shows them; here they are watched, so
// that the server's statistics know what was shown and what was taken.

import {
  commands,
  type Disposable,
  type InlineCompletionItem,
  type InlineCompletionList,
  type TextDocument,
  type Position,
  workspace,
} from 'vscode';
import type { Middleware } from 'vscode-languageclient';

import type { Gemma } from '../gemma';
import type { AcceptedCompletion } from '../protocol';
import { type Shown, Tracker } from './tracker';

type Tell = Gemma['notify'];

/** The command that the server's items carry. */
const ACCEPTED = 'gemma.didAcceptCompletion';

export class Completions implements Disposable {
  /** For the language client. */
  readonly middleware: Pick<Middleware, 'provideInlineCompletionItems'>;

  private readonly tracker = new Tracker();
  private readonly listening: Disposable[];
  private tell: Tell = () => {};

  constructor() {
    this.middleware = {
      provideInlineCompletionItems: async (document, position, context, token, next) => {
        const result = await next(document, position, context, token);
        if (!token.isCancellationRequested) {
          this.show(shownBy(document, position, itemsOf(result)[0]));
        }
        return result;
      },
    };
    this.listening = [
      commands.registerCommand(ACCEPTED, (accepted: AcceptedCompletion) => this.accepted(accepted)),
      workspace.onDidChangeTextDocument(({ document, contentChanges }) => {
        const taken = this.tracker.change(document.uri.toString(), contentChanges);
        if (taken !== undefined) {
          this.accepted(taken);
        }
      }),
    ];
  }

  /** From now on the server is told. */
  connect(tell: Tell): void {
    this.tell = tell;
  }

  dispose(): void {
    this.listening.forEach((listener) => listener.dispose());
  }

  private show(shown: Shown | undefined): void {
    if (this.tracker.show(shown) && shown !== undefined) {
      this.tell('gemma/didShowCompletion', { id: shown.id });
    }
  }

  private accepted(accepted: AcceptedCompletion): void {
    this.tell('gemma/didAcceptCompletion', accepted);
    // The walkthrough's step is done.
    void commands.executeCommand('setContext', 'gemma.accepted', true);
  }
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
