// Follows the suggestion that is on the screen, to know what of it is taken.
//
// The editor tells an extension when a suggestion was taken as a whole (it runs the item's command). Words
// and lines are seen only as changes of the document, told here from typing by what they insert.

import type { CompletionId } from '../protocol';

export interface Shown {
  readonly id: CompletionId;
  readonly uri: string;
  /** Where in the document the part that is grey begins. */
  readonly offset: number;
  /** The part that is grey. */
  readonly text: string;
}

/** One change of a document. */
export interface Change {
  readonly rangeOffset: number;
  readonly rangeLength: number;
  readonly text: string;
}

export interface Taken {
  readonly id: CompletionId;
  readonly kind: 'word' | 'line';
  readonly text: string;
}

/** Brackets and quotes that the editor closes by itself while they are typed. */
const CLOSED_BY_THE_EDITOR = new Set(['()', '[]', '{}', '<>', '""', "''", '``']);

export class Tracker {
  private shown: Shown | undefined;
  private last: CompletionId | undefined;

  /** Notes what is on the screen now. True where it is a suggestion that was not there before. */
  show(shown: Shown | undefined): boolean {
    this.shown = shown;
    if (shown === undefined || shown.id === this.last) {
      return false;
    }
    this.last = shown.id;
    return true;
  }

  /** Notes that a document changed. The answer is what was taken by that. */
  change(uri: string, changes: readonly Change[]): Taken | undefined {
    const { shown } = this;
    if (shown === undefined || shown.uri !== uri || changes.length === 0) {
      return undefined;
    }
    this.shown = undefined;
    const [change] = changes;
    if (changes.length !== 1 || change?.rangeLength !== 0 || change.rangeOffset !== shown.offset) {
      return undefined;
    }
    // The document ends its lines as it does, whatever the suggestion was written with.
    const inserted = withPlainEnds(change.text);
    const grey = withPlainEnds(shown.text);
    if (!grey.startsWith(inserted) || grey === inserted) {
      // Something else; or the whole of it, of which the item's command tells.
      return undefined;
    }
    this.shown = { ...shown, offset: shown.offset + change.text.length, text: grey.slice(inserted.length) };
    if (isTyped(inserted)) {
      return undefined;
    }
    // A line is taken with its end; a word never ends in one.
    const kind = inserted.endsWith('\n') ? 'line' : 'word';
    return { id: shown.id, kind, text: change.text };
  }
}

/** One character, a pair, or a new line with its indentation comes from the keyboard. */
function isTyped(inserted: string): boolean {
  return inserted.length === 1 || inserted.trim() === '' || CLOSED_BY_THE_EDITOR.has(inserted);
}

function withPlainEnds(text: string): string {
  return text.replaceAll('\r\n', '\n');
}
