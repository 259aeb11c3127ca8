// Markdown to a tree of what may be shown. The tree knows no markup: whatever the model writes
// ends up as text, as one of a few elements, or as a link that the extension opens.

import { Lexer, type Token, type Tokens } from 'marked';

import { NO_MARKS, type Marks } from './marks';

export type Node = string | Element | Code | ReferenceLink;

export interface Element {
  readonly type: 'element';
  readonly tag: Tag;
  readonly attributes?: Readonly<Record<string, string>>;
  readonly children: readonly Node[];
}

export type Tag =
  | 'a'
  | 'blockquote'
  | 'br'
  | 'code'
  | 'del'
  | 'em'
  | 'h3'
  | 'h4'
  | 'h5'
  | 'h6'
  | 'hr'
  | 'li'
  | 'ol'
  | 'p'
  | 'strong'
  | 'table'
  | 'tbody'
  | 'td'
  | 'th'
  | 'thead'
  | 'tr'
  | 'ul';

export interface Code {
  readonly type: 'code';
  readonly language: string;
  readonly text: string;
  /** Its closing fence has been written. */
  readonly complete: boolean;
  /** Which of the answer's changes to the document this is. */
  readonly change?: number;
}

/** "lines 3 to 5", which the server found in the answer. */
export interface ReferenceLink {
  readonly type: 'reference';
  readonly index: number;
  readonly text: string;
}

/** A block at the top level, and the text it comes from. */
export interface Piece {
  readonly offset: number;
  readonly token: Token;
}

// A block may still grow into the one before it (the second item of a list begins as a paragraph).
const UNSETTLED = 2;

/**
 * The text's blocks. Of `previous`, the blocks of what this text began with, those which can
 * no longer change are taken over: an answer is not read again from its start for each word.
 */
export function piecesOf(text: string, previous: readonly Piece[] = []): Piece[] {
  const visible = previous.filter(({ token }) => token.type !== 'space');
  const resume = visible.at(-UNSETTLED);
  const kept = resume ? previous.slice(0, previous.indexOf(resume)) : [];
  const pieces = [...kept];
  let offset = resume?.offset ?? 0;
  for (const token of new Lexer({ gfm: true }).lex(text.slice(offset))) {
    pieces.push({ offset, token });
    offset += token.raw.length;
  }
  return pieces;
}

/** What is shown for a block; nothing for blank lines and link definitions. */
export function nodeOf(token: Token, marks: Marks = NO_MARKS): Node | undefined {
  return blocks([token], marks)[0];
}

function blocks(tokens: readonly Token[], marks: Marks): Node[] {
  return tokens.flatMap((token) => block(token as Tokens.Generic & Token, marks));
}

function block(token: Token, marks: Marks): Node[] {
  switch (token.type) {
    case 'space':
    case 'def':
      return [];
    case 'code':
      return [code(token as Tokens.Code, marks)];
    case 'heading': {
      const { depth, tokens } = token as Tokens.Heading;
      return [element(headingTag(depth), inline(tokens, marks))];
    }
    case 'hr':
      return [element('hr', [])];
    case 'blockquote':
      return [element('blockquote', blocks((token as Tokens.Blockquote).tokens, marks))];
    case 'list':
      return [list(token as Tokens.List, marks)];
    case 'table':
      return [table(token as Tokens.Table, marks)];
    case 'paragraph':
      return [element('p', inline((token as Tokens.Paragraph).tokens, marks))];
    case 'html':
      return [element('p', [token.raw.trimEnd()])];
    default:
      return inline([token], marks);
  }
}

function inline(tokens: readonly Token[], marks: Marks): Node[] {
  return tokens.flatMap((token) => phrase(token, marks));
}

function phrase(token: Token, marks: Marks): Node[] {
  switch (token.type) {
    case 'strong':
    case 'em':
    case 'del':
      return [element(token.type, inline((token as Tokens.Strong).tokens, marks))];
    case 'codespan':
      return [element('code', marks.link((token as Tokens.Codespan).text))];
    case 'br':
      return [element('br', [])];
    case 'link':
      return [link(token as Tokens.Link, marks)];
    case 'image':
      return [link(token as Tokens.Image, marks)];
    case 'escape':
      return [(token as Tokens.Escape).text];
    case 'checkbox':
      return [(token as Tokens.Checkbox).checked ? '☑ ' : '☐ '];
    case 'text': {
      const { tokens: inner, text } = token as Tokens.Text;
      return inner ? inline(inner, marks) : marks.link(decoded(text));
    }
    default:
      return [token.raw];
  }
}

/** Pictures of other machines are not loaded: they are links as well. */
function link(token: Tokens.Link | Tokens.Image, marks: Marks): Node {
  const children = inline(token.tokens, marks);
  const shown = children.length > 0 ? children : [token.href];
  if (!/^https?:\/\//i.test(token.href)) {
    return element('em', shown);
  }
  return element('a', shown, { href: token.href, title: token.href });
}

function code({ raw, lang = '', text, codeBlockStyle }: Tokens.Code, marks: Marks): Code {
  const language = /^[^\s,{:]*/.exec(lang.trim())?.[0] ?? '';
  const fence = /^ {0,3}(`{3,}|~{3,})/.exec(raw)?.[1];
  const lastLine = raw.trimEnd().split('\n').slice(1).at(-1)?.trim() ?? '';
  const closed = fence !== undefined && lastLine.startsWith(fence) && !lastLine.replaceAll(fence[0] ?? '', '');
  const change = marks.changeOf(text);
  const complete = closed || codeBlockStyle === 'indented';
  return { type: 'code', language, text, complete, ...(change !== undefined && { change }) };
}

function list({ ordered, start, items, loose }: Tokens.List, marks: Marks): Node {
  const children = items.map((item) => element('li', blocks(item.tokens, marks)));
  const attributes: Record<string, string> = {};
  if (ordered && start !== '' && start !== 1) {
    attributes['start'] = String(start);
  }
  if (loose) {
    attributes['class'] = 'loose';
  }
  return element(ordered ? 'ol' : 'ul', children, attributes);
}

function table({ header, rows }: Tokens.Table, marks: Marks): Node {
  const row = (cells: readonly Tokens.TableCell[], tag: 'th' | 'td'): Node =>
    element(
      'tr',
      cells.map((cell) => element(tag, inline(cell.tokens, marks))),
    );
  const head = element('thead', [row(header, 'th')]);
  const body = element(
    'tbody',
    rows.map((cells) => row(cells, 'td')),
  );
  return element('table', [head, body]);
}

/** An answer stands under the heading of its turn, which is the second of the page. */
function headingTag(depth: number): Tag {
  return (['h3', 'h4', 'h5'] as const)[depth - 1] ?? 'h6';
}

function element(tag: Tag, children: readonly Node[], attributes?: Readonly<Record<string, string>>): Element {
  return { type: 'element', tag, children, ...(attributes && { attributes }) };
}

const ENTITIES: Readonly<Record<string, string>> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
  nbsp: '\u00a0',
};

function decoded(text: string): string {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w+));/gi, (whole, decimal, hexadecimal, name) => {
    if (name) {
      return ENTITIES[name] ?? whole;
    }
    const point = decimal ? Number.parseInt(decimal, 10) : Number.parseInt(hexadecimal, 16);
    return point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });
}

/** The words of a tree, for screen readers and for comparing. */
export function wordsOf(node: Node): string {
  if (typeof node === 'string') {
    return node;
  }
  if (node.type === 'element') {
    return node.children.map(wordsOf).join(node.tag === 'tr' ? ' ' : '');
  }
  return node.type === 'code' ? `Code in ${node.language || 'plain text'}.` : node.text;
}
