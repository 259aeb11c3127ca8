// A block of code with its buttons. It grows in place: a line that stays the same keeps its element.

import { confirm, iconButton, make, relabel } from './dom';
import { highlighted, type Word } from './highlight';
import { send } from './host';
import type { Code } from './markdown';

export class CodeBlock {
  readonly element: HTMLElement;
  private readonly lines: { key: string; element: HTMLElement }[] = [];
  private readonly language = make('span', { class: 'language' });
  private readonly body = make('code');
  private readonly tools: HTMLElement;
  private readonly showChange: HTMLButtonElement;
  private code: Code = { type: 'code', language: '', text: '', complete: false };

  constructor(private readonly turn: string) {
    const copy = iconButton('copy', 'Copy', () => {
      send({ type: 'copy', text: this.code.text });
      confirm(copy, 'Copied');
    });
    const insert = iconButton('insert', 'Insert at Cursor', () => send({ type: 'insert', text: this.code.text }));
    this.showChange = iconButton('diff', 'Show as a Change to the File', () => {
      if (this.code.change !== undefined) {
        send({ type: 'diff', turn: this.turn, code: this.code.change });
      }
    });
    this.tools = make('span', { class: 'tools' }, this.showChange, insert, copy);
    this.element = make(
      'div',
      { class: 'code-block', role: 'group' },
      make('div', { class: 'code-head' }, this.language, this.tools),
      make('pre', { tabindex: '0' }, this.body),
    );
  }

  update(code: Code): void {
    this.code = code;
    const name = code.language || 'text';
    this.language.textContent = name;
    this.element.setAttribute('aria-label', `Code in ${name}`);
    this.tools.hidden = !code.complete;
    this.showChange.hidden = code.change === undefined;
    relabel(this.showChange, 'Show as a Change to the File');
    const lines = highlighted(code.language, code.text);
    for (const [index, words] of lines.entries()) {
      this.setLine(index, words);
    }
    for (const { element } of this.lines.splice(lines.length)) {
      element.remove();
    }
  }

  private setLine(index: number, words: readonly Word[]): void {
    const key = JSON.stringify(words);
    const line = this.lines[index];
    if (line?.key === key) {
      return;
    }
    const content = words.map(({ text, style }) => (style ? make('span', { class: style }, text) : text));
    if (line) {
      line.key = key;
      line.element.replaceChildren(...content, '\n');
    } else {
      const element = make('span', { class: 'line' }, ...content, '\n');
      this.lines.push({ key, element });
      this.body.append(element);
    }
  }
}
