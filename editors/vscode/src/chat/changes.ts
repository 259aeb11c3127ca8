// A suggested change shown beside the document, and then applied or discarded.

import {
  EventEmitter,
  Range,
  TabInputTextDiff,
  Uri,
  WorkspaceEdit,
  commands,
  window,
  workspace,
  type Disposable,
  type TextDocumentContentProvider,
} from 'vscode';

import type { CodeEdit } from '../protocol';
import { replaced } from './edits';
import { fromProtocol, nameOf, reveal } from './places';

const CHANGE_SCHEME = 'gemma-edit';
const MOST = 20;

interface Change {
  readonly document: Uri;
  readonly version: number;
  readonly range: Range;
  readonly newText: string;
  /** The document as it would be. */
  readonly text: string;
}

export class Changes implements TextDocumentContentProvider, Disposable {
  private readonly changed = new EventEmitter<Uri>();
  readonly onDidChange = this.changed.event;
  private readonly open = new Map<string, Change>();
  private readonly registration = workspace.registerTextDocumentContentProvider(CHANGE_SCHEME, this);
  private shown = 0;

  provideTextDocumentContent(uri: Uri): string {
    return this.open.get(uri.toString())?.text ?? '';
  }

  /** Shows a change; gives sentences for the user where it no longer fits. */
  async show({ textDocument, range, newText }: CodeEdit): Promise<string | undefined> {
    const uri = Uri.parse(textDocument.uri);
    const document = await workspace.openTextDocument(uri);
    const { version } = textDocument;
    if (typeof version === 'number' && version !== document.version) {
      return outdated(uri);
    }
    const place = fromProtocol(range);
    const text = replaced(document.getText(), document.offsetAt(place.start), document.offsetAt(place.end), newText);
    this.shown += 1;
    const right = uri.with({ scheme: CHANGE_SCHEME, query: String(this.shown), fragment: '' });
    this.keep(right, { document: uri, version: document.version, range: place, newText, text });
    await commands.executeCommand('vscode.diff', uri, right, `${nameOf(uri)} with Gemma's change`, { preview: true });
    return undefined;
  }

  async apply(uri: Uri | undefined): Promise<void> {
    const right = uri ?? window.activeTextEditor?.document.uri;
    const change = right && this.open.get(right.toString());
    if (!change) {
      return;
    }
    const document = await workspace.openTextDocument(change.document);
    if (document.version !== change.version) {
      await this.close(right);
      void window.showWarningMessage(outdated(change.document));
      return;
    }
    const edit = new WorkspaceEdit();
    edit.replace(change.document, change.range, change.newText);
    if (!(await workspace.applyEdit(edit))) {
      void window.showWarningMessage(`${nameOf(change.document)} did not take the change. Is it read-only?`);
      return;
    }
    await this.close(right);
    await reveal(change.document, new Range(change.range.start, change.range.start));
  }

  async discard(uri: Uri | undefined): Promise<void> {
    const right = uri ?? window.activeTextEditor?.document.uri;
    if (right) {
      await this.close(right);
    }
  }

  dispose(): void {
    this.registration.dispose();
    this.changed.dispose();
  }

  /** A tab that was closed can be opened again, so a few changes are kept behind it. */
  private keep(right: Uri, change: Change): void {
    this.open.set(right.toString(), change);
    const [oldest] = this.open.keys();
    if (this.open.size > MOST && oldest !== undefined) {
      this.open.delete(oldest);
    }
  }

  private async close(right: Uri): Promise<void> {
    const tabs = window.tabGroups.all
      .flatMap((group) => group.tabs)
      .filter(({ input }) => input instanceof TabInputTextDiff && input.modified.toString() === right.toString());
    await window.tabGroups.close(tabs);
    this.open.delete(right.toString());
  }
}

function outdated(uri: Uri): string {
  return `${nameOf(uri)} has been changed since this answer, so the change may no longer fit. Ask again to get one for the text as it is now.`;
}
