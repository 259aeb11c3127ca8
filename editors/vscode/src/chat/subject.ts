// What the next question is about: the file and the selection in use, or nothing if so wished.

import { Disposable, EventEmitter, window, type TextEditor } from 'vscode';

import type { Question } from '../protocol';
import type { Subject } from './messages';
import { aboutFile, editorInUse, placeIn } from './places';

export class SubjectInUse implements Disposable {
  private readonly changed = new EventEmitter<Subject>();
  readonly onDidChange = this.changed.event;
  private on = true;
  private last = '';
  private readonly listeners: Disposable;

  constructor() {
    this.listeners = Disposable.from(
      window.onDidChangeActiveTextEditor(() => this.tell()),
      window.onDidChangeVisibleTextEditors(() => this.tell()),
      window.onDidChangeTextEditorSelection(() => this.tell()),
    );
  }

  get current(): Subject {
    const editor = editorInUse();
    return { on: this.on, ...(editor && { about: aboutFile(editor.document.uri, editor.selection) }) };
  }

  /** The document of a question that is asked now; nothing where there is none to talk about. */
  place(): Pick<Question, 'textDocument' | 'selection'> | undefined {
    const editor = editorInUse();
    return this.on && editor ? placeOfEditor(editor) : undefined;
  }

  talkAbout(on: boolean): void {
    this.on = on;
    this.tell();
  }

  dispose(): void {
    this.listeners.dispose();
    this.changed.dispose();
  }

  /** Most moves of the cursor change nothing that is shown. */
  private tell(): void {
    const subject = this.current;
    const words = JSON.stringify(subject);
    if (words === this.last) {
      return;
    }
    this.last = words;
    this.changed.fire(subject);
  }
}

export function placeOfEditor({ document, selection }: TextEditor): Pick<Question, 'textDocument' | 'selection'> {
  return placeIn(document.uri, selection);
}
