// An answer's Markdown on the page. Only the blocks that changed since the last time are made anew.

import { CodeBlock } from './codeblock';
import { make } from './dom';
import { send } from './host';
import { nodeOf, piecesOf, wordsOf, type Node, type Piece } from './markdown';
import { Marks, NO_MARKS, type Marked } from './marks';

interface Shown {
  readonly key: string;
  readonly element: globalThis.Node;
  readonly block?: CodeBlock;
}

export class Prose {
  readonly element = make('div', { class: 'prose' });
  private pieces: Piece[] = [];
  private shown: Shown[] = [];

  constructor(private readonly turn: string) {}

  /** While an answer grows. */
  grow(text: string): void {
    this.show(piecesOf(text, this.pieces), NO_MARKS);
  }

  /** When it is whole, and the server has said what is in it. */
  finish(answer: Marked): void {
    this.show(piecesOf(answer.text), new Marks(answer));
  }

  get words(): string {
    return this.nodes(NO_MARKS, this.pieces).map(wordsOf).join(' ');
  }

  private nodes(marks: Marks, pieces: readonly Piece[]): Node[] {
    return pieces.map(({ token }) => nodeOf(token, marks)).filter((node) => node !== undefined);
  }

  private show(pieces: Piece[], marks: Marks): void {
    this.pieces = pieces;
    const nodes = this.nodes(marks, pieces);
    this.shown = nodes.map((node, index) => this.place(node, this.shown[index]));
    while (this.element.childNodes.length > nodes.length) {
      this.element.lastChild?.remove();
    }
  }

  private place(node: Node, before: Shown | undefined): Shown {
    const key = JSON.stringify(node);
    if (before?.key === key) {
      return before;
    }
    if (before?.block && typeof node === 'object' && node.type === 'code') {
      before.block.update(node);
      return { ...before, key };
    }
    const made = this.mount(node);
    if (before) {
      this.element.replaceChild(made.element, before.element);
    } else {
      this.element.append(made.element);
    }
    return { key, ...made };
  }

  private mount(node: Node): { element: globalThis.Node; block?: CodeBlock } {
    if (typeof node === 'string') {
      return { element: document.createTextNode(node) };
    }
    if (node.type === 'code') {
      const block = new CodeBlock(this.turn);
      block.update(node);
      return { element: block.element, block };
    }
    if (node.type === 'reference') {
      return { element: this.reference(node.index, node.text) };
    }
    const children = node.children.map((child) => this.mount(child).element);
    const element = make(node.tag, node.attributes, ...children);
    const href = node.tag === 'a' ? node.attributes?.['href'] : undefined;
    if (href) {
      element.addEventListener('click', (event) => {
        event.preventDefault();
        send({ type: 'openLink', href });
      });
    }
    return { element: node.tag === 'table' ? make('div', { class: 'table', tabindex: '0' }, element) : element };
  }

  private reference(index: number, text: string): HTMLElement {
    const button = make('button', { type: 'button', class: 'reference', title: `Show ${text} in the editor` }, text);
    button.addEventListener('click', () => send({ type: 'reveal', turn: this.turn, reference: index }));
    return button;
  }
}
