// Documents and selections of VS Code, as questions and the protocol name them.

import type { Range as ProtocolRange } from 'vscode-languageclient';
import { Range, Uri, window, workspace, type TextEditor } from 'vscode';

import type { Question } from '../protocol';
import { DOCUMENTS } from '../server/documents';
import type { About } from './model';

/** Others are views of something: a version in git, a log, a suggested change. */
export function isTalkedAbout(uri: Uri): boolean {
  return DOCUMENTS.some(({ scheme }) => scheme === uri.scheme);
}

export function nameOf(uri: Uri): string {
  return uri.path.split('/').at(-1) || uri.toString(true);
}

/** A file, or a part of it where the range is not empty. */
export function aboutFile(uri: Uri, range?: Range): About {
  const lines = range && !range.isEmpty ? linesIn(range) : undefined;
  return { uri: uri.toString(), name: nameOf(uri), ...(lines && { lines }) };
}

/** A selection that ends before the first character of a line has nothing of that line. */
export function linesIn({ start, end }: Range): { first: number; last: number } {
  const last = end.character === 0 && end.line > start.line ? end.line : end.line + 1;
  return { first: start.line + 1, last };
}

export function toProtocol({ start, end }: Range): ProtocolRange {
  return {
    start: { line: start.line, character: start.character },
    end: { line: end.line, character: end.character },
  };
}

export function fromProtocol({ start, end }: ProtocolRange): Range {
  return new Range(start.line, start.character, end.line, end.character);
}

/** The part of a question that says what it is about. */
export function placeIn(uri: Uri, range: Range | undefined): Pick<Question, 'textDocument' | 'selection'> {
  return { textDocument: { uri: uri.toString() }, ...(range && { selection: toProtocol(range) }) };
}

export function aboutQuestion({ textDocument, selection }: Question): About | undefined {
  if (!textDocument) {
    return undefined;
  }
  return aboutFile(Uri.parse(textDocument.uri), selection && fromProtocol(selection));
}

/** Where people write: the editor that was last in use, also while a view has the focus. */
export function editorInUse(): TextEditor | undefined {
  const active = window.activeTextEditor;
  if (active && isTalkedAbout(active.document.uri)) {
    return active;
  }
  return window.visibleTextEditors.find(({ document }) => isTalkedAbout(document.uri));
}

export async function reveal(uri: Uri, range: Range | undefined): Promise<void> {
  const document = await workspace.openTextDocument(uri);
  const shown = window.visibleTextEditors.find((editor) => editor.document === document);
  await window.showTextDocument(document, {
    ...(range && { selection: document.validateRange(range) }),
    ...(shown?.viewColumn && { viewColumn: shown.viewColumn }),
  });
}
