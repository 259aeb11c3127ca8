// Tells the server where the cursor came to rest, so that it can read what a suggestion there will need.

import {
  type Disposable,
  languages,
  type TextEditor,
  TextEditorSelectionChangeKind,
  window,
  workspace,
} from 'vscode';

import { type Gemma, NO_MODEL_YET } from '../gemma';
import { DOCUMENTS } from '../server/documents';
import { type Place, Rest } from './rest';

export class CursorWatch implements Disposable {
  private readonly rest: Rest;
  private readonly listening: Disposable[];
  private wasReady = false;

  constructor(gemma: Gemma) {
    this.rest = new Rest(({ uri, line, character }) =>
      gemma.notify('gemma/didMoveCursor', { textDocument: { uri }, position: { line, character } }),
    );
    this.listening = [
      workspace.onDidChangeTextDocument(({ document, contentChanges }) => {
        if (contentChanges.length > 0) {
          this.rest.change(document.uri.toString());
        }
      }),
      window.onDidChangeTextEditorSelection(({ textEditor, kind }) => {
        if (textEditor === window.activeTextEditor) {
          this.moved(textEditor, kind);
        }
      }),
      window.onDidChangeActiveTextEditor((editor) => this.arrived(editor)),
      gemma.onDidChangeStatus(({ state }) => this.ready(state === 'ready', NO_MODEL_YET.has(state))),
    ];
  }

  dispose(): void {
    this.rest.stop();
    this.listening.forEach((listener) => listener.dispose());
  }

  private moved(editor: TextEditor, kind: TextEditorSelectionChangeKind | undefined): void {
    const place = placeIn(editor);
    if (place === undefined) {
      this.rest.stop();
    } else if (kind === TextEditorSelectionChangeKind.Mouse) {
      this.rest.arrive(place);
    } else {
      this.rest.move(place);
    }
  }

  private arrived(editor: TextEditor | undefined): void {
    const place = placeIn(editor);
    if (place === undefined) {
      this.rest.stop();
    } else {
      this.rest.arrive(place);
    }
  }

  /** A server that has just loaded its model has heard of no place yet. */
  private ready(isReady: boolean, isAway: boolean): void {
    if (isReady && !this.wasReady) {
      this.rest.forget();
      this.arrived(window.activeTextEditor);
    }
    this.wasReady = isReady || (this.wasReady && !isAway);
  }
}

/** Where the cursor is, if it is in a document that the server follows and selects nothing. */
function placeIn(editor: TextEditor | undefined): Place | undefined {
  if (editor === undefined || !editor.selection.isEmpty || languages.match(DOCUMENTS, editor.document) === 0) {
    return undefined;
  }
  const { document, selection } = editor;
  const { line, character } = selection.active;
  return { uri: document.uri.toString(), version: document.version, line, character };
}
