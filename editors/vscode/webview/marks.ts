// What the server found in an answer, found again in what is shown: named lines, and code that
// changes the document. Both come in the order in which they stand in the answer.

import type { Code as SentCode, Reference } from '../src/protocol';
import type { Node } from './markdown';

export interface Marked {
  readonly text: string;
  readonly references: readonly Reference[];
  readonly code: readonly SentCode[];
}

export class Marks {
  private nextReference = 0;
  private nextCode = 0;

  constructor(private readonly answer: Marked) {}

  /** The words, with links where they name lines. */
  link(words: string): Node[] {
    const nodes: Node[] = [];
    let rest = words;
    for (;;) {
      const found = this.firstIn(rest);
      if (!found) {
        break;
      }
      if (found.at > 0) {
        nodes.push(rest.slice(0, found.at));
      }
      nodes.push({ type: 'reference', index: found.index, text: found.words });
      rest = rest.slice(found.at + found.words.length);
      this.nextReference = found.index + 1;
    }
    if (rest) {
      nodes.push(rest);
    }
    return nodes;
  }

  /** The number of the change that a code block is, where it is one. */
  changeOf(text: string): number | undefined {
    const { code } = this.answer;
    for (let index = this.nextCode; index < code.length; index += 1) {
      if (code[index]?.text.trim() !== text.trim()) {
        continue;
      }
      this.nextCode = index + 1;
      return code[index]?.edit ? index : undefined;
    }
    return undefined;
  }

  private firstIn(words: string): { at: number; index: number; words: string } | undefined {
    const { references, text } = this.answer;
    for (let index = this.nextReference; index < references.length; index += 1) {
      const { offset = 0, length = 0 } = references[index] ?? {};
      const named = text.slice(offset, offset + length);
      const at = named ? words.indexOf(named) : -1;
      if (at >= 0) {
        return { at, index, words: named };
      }
    }
    return undefined;
  }
}

export const NO_MARKS = new Marks({ text: '', references: [], code: [] });
