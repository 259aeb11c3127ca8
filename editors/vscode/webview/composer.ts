// Where questions are written: the field, what it talks about, the picture, send and stop.

import type { Subject } from '../src/chat/messages';
import { linesOf } from '../src/chat/model';
import { Attachment } from './attachment';
import { icon, iconButton, make } from './dom';
import { keep, kept, send } from './host';
import { Recall } from './recall';

export class Composer {
  readonly element: HTMLElement;
  readonly attachment: Attachment;
  private readonly field: HTMLTextAreaElement;
  private readonly subjectButton = make('button', { type: 'button', class: 'subject' });
  private readonly sendButton = iconButton('send', 'Send (Enter)', () => this.ask());
  private readonly stopButton = iconButton('stop', 'Stop (Escape)', () => send({ type: 'stop' }));
  private readonly noteLine = make('div', { class: 'note', role: 'status' });
  private readonly recall = new Recall();
  private subject: Subject = { on: true };
  private busy = false;

  constructor() {
    this.field = make('textarea', { rows: '1', 'aria-label': 'Question', spellcheck: 'false' });
    this.field.value = kept().draft ?? '';
    this.field.addEventListener('input', () => this.typed());
    this.field.addEventListener('keydown', (event) => this.key(event));
    this.field.addEventListener('paste', (event) => this.pasted(event));
    this.subjectButton.addEventListener('click', () => send({ type: 'talkAbout', on: !this.subject.on }));
    this.attachment = new Attachment(
      (text) => this.note(text),
      () => this.showState(),
      () => this.focus(),
    );
    const pick = iconButton('picture', 'Add a Screenshot', () => send({ type: 'pickPicture' }));
    this.element = make(
      'form',
      { class: 'composer', 'aria-label': 'Ask Gemma' },
      this.noteLine,
      make(
        'div',
        { class: 'box' },
        make('div', { class: 'row' }, this.subjectButton, this.attachment.element),
        this.field,
        make('div', { class: 'row end-row' }, pick, make('span', { class: 'space' }), this.stopButton, this.sendButton),
      ),
    );
    this.element.addEventListener('submit', (event) => event.preventDefault());
    this.showState();
  }

  focus(): void {
    this.field.focus();
  }

  note(text: string): void {
    this.noteLine.textContent = text;
  }

  setBusy(busy: boolean): void {
    this.busy = busy;
    this.showState();
  }

  setSubject(subject: Subject): void {
    this.subject = subject;
    this.showState();
  }

  setQuestions(questions: readonly string[]): void {
    this.recall.set(questions);
  }

  private ask(): void {
    const question = this.field.value.trim();
    const picture = this.attachment.current;
    if (!question && !picture) {
      return;
    }
    send({ type: 'ask', question, kind: 'ask', ...(picture && { picture }) });
    this.attachment.take();
    this.write('');
    this.note('');
  }

  private key(event: KeyboardEvent): void {
    if (event.isComposing) {
      return;
    }
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      this.ask();
    } else if (event.key === 'ArrowUp' && this.caretOn('first')) {
      this.bring(event, this.recall.earlier(this.field.value));
    } else if (event.key === 'ArrowDown' && this.caretOn('last')) {
      this.bring(event, this.recall.later());
    }
  }

  private bring(event: KeyboardEvent, question: string | undefined): void {
    if (question === undefined) {
      return;
    }
    event.preventDefault();
    this.write(question);
  }

  private caretOn(line: 'first' | 'last'): boolean {
    const { selectionStart, selectionEnd, value } = this.field;
    if (selectionStart !== selectionEnd) {
      return false;
    }
    const beyond = line === 'first' ? value.slice(0, selectionStart) : value.slice(selectionEnd);
    return !beyond.includes('\n');
  }

  private typed(): void {
    this.recall.reset();
    this.note('');
    keep({ draft: this.field.value });
    this.showState();
  }

  private write(text: string): void {
    this.field.value = text;
    keep({ draft: text });
    this.showState();
  }

  private pasted(event: ClipboardEvent): void {
    const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith('image/'));
    if (!file) {
      return;
    }
    event.preventDefault();
    void this.attachment.add(file);
  }

  private showState(): void {
    const picture = this.attachment?.current;
    this.field.placeholder = picture ? 'Ask about the picture (or just send it)' : 'Ask Gemma';
    this.stopButton.hidden = !this.busy;
    this.sendButton.disabled = this.field.value.trim() === '' && !picture;
    this.showSubject(picture !== undefined);
  }

  private showSubject(picture: boolean): void {
    const { about, on } = this.subject;
    this.subjectButton.hidden = picture;
    this.subjectButton.disabled = !about;
    this.subjectButton.setAttribute('aria-pressed', String(on && about !== undefined));
    const lines = about?.lines ? `, ${linesOf(about.lines)}` : '';
    const words = about ? `${about.name}${lines}` : 'No file is open';
    this.subjectButton.replaceChildren(icon('file'), make('span', { class: 'name' }, words));
    this.subjectButton.title = !about
      ? 'The question is about no file'
      : on
        ? `The question is about ${words}. Click to ask about nothing in particular.`
        : `The question is about no file. Click to ask about ${words}.`;
    this.subjectButton.setAttribute('aria-label', about ? `Talk about ${words}` : words);
  }
}
