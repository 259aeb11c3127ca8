// Answers on the page: what Markdown becomes, and that nothing of it is ever markup.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { nodeOf, piecesOf, wordsOf, type Code, type Element, type Node, type Piece } from '../../webview/markdown';
import { Marks, type Marked } from '../../webview/marks';

function nodes(text: string, marked: Partial<Marked> = {}): Node[] {
  const marks = new Marks({ text, references: [], code: [], ...marked });
  return piecesOf(text)
    .map(({ token }) => nodeOf(token, marks))
    .filter((node) => node !== undefined);
}

function outline(node: Node): unknown {
  if (typeof node === 'string') {
    return node;
  }
  if (node.type === 'element') {
    return [node.tag, ...node.children.map(outline)];
  }
  return node.type === 'code' ? ['code block', node.language, node.text] : ['lines', node.text];
}

function outlines(text: string, marked?: Partial<Marked>): unknown[] {
  return nodes(text, marked).map(outline);
}

function all(node: Node): Node[] {
  return typeof node === 'object' && node.type === 'element' ? [node, ...node.children.flatMap(all)] : [node];
}

const ANSWER = [
  '## Title',
  '',
  'Some *words* and `code`, lines 3 to 5.',
  '',
  '1. one',
  '2. two',
  '   - inner',
  '',
  '```rust',
  'fn main() {}',
  '```',
  '',
  '| a | b |',
  '|---|---|',
  '| 1 | 2 |',
  '',
  '> quoted',
  '',
  'End.',
  '',
].join('\n');

test('the blocks of an answer', () => {
  assert.deepEqual(outlines(ANSWER), [
    ['h4', 'Title'],
    ['p', 'Some ', ['em', 'words'], ' and ', ['code', 'code'], ', lines 3 to 5.'],
    ['ol', ['li', 'one'], ['li', 'two', ['ul', ['li', 'inner']]]],
    ['code block', 'rust', 'fn main() {}'],
    ['table', ['thead', ['tr', ['th', 'a'], ['th', 'b']]], ['tbody', ['tr', ['td', '1'], ['td', '2']]]],
    ['blockquote', ['p', 'quoted']],
    ['p', 'End.'],
  ]);
});

test('markup in an answer is shown as the text that it is', () => {
  const hostile = 'a <img src=x onerror=alert(1)> b\n\n<script>alert(1)</script>\n';
  assert.deepEqual(outlines(hostile), [
    ['p', 'a ', '<img src=x onerror=alert(1)>', ' b'],
    ['p', '<script>alert(1)</script>'],
  ]);
});

test('only addresses of the web become links, and pictures are not loaded', () => {
  const links = nodes(
    '[a](https://a.example/x) [b](javascript:alert(1)) [c](command:x) [d](file:///etc) ![e](https://e.example/p.png)',
  )
    .flatMap(all)
    .filter((node): node is Element => typeof node === 'object' && node.type === 'element' && node.tag === 'a');
  assert.deepEqual(
    links.map(({ attributes }) => attributes?.['href']),
    ['https://a.example/x', 'https://e.example/p.png'],
  );
});

test('entities are the characters that they stand for, but not in code', () => {
  assert.deepEqual(outlines('1 &lt; 2 &amp;&#35;&#x263a;&nope; `&lt;`'), [['p', '1 < 2 &#☺&nope; ', ['code', '&lt;']]]);
});

test('a code block is complete when its fence is closed', () => {
  const complete = (text: string): boolean | undefined =>
    nodes(text).find((node): node is Code => typeof node === 'object' && node.type === 'code')?.complete;
  assert.equal(complete('```js\nlet a = 1;\n'), false);
  assert.equal(complete('```js\nlet a = `b`;\n``'), false);
  assert.equal(complete('```js\nlet a = 1;\n```'), true);
  assert.equal(complete('````md\n```\n'), false);
  assert.equal(complete('~~~\nx\n~~~\n'), true);
  assert.equal(complete('```\n```'), true);
});

test('the language of a code block is the first word of what stands behind its fence', () => {
  assert.deepEqual(outlines('```rust,ignore\nx\n```'), [['code block', 'rust', 'x']]);
  assert.deepEqual(outlines('```js {1,3}\nx\n```'), [['code block', 'js', 'x']]);
});

test('named lines become links, in their order and wherever they stand', () => {
  const text = 'See line 2.\n\n- **line 2** again\n- lines 3 to 4\n';
  const range = { start: { line: 1, character: 0 }, end: { line: 1, character: 5 } };
  const references = ['line 2', 'line 2', 'lines 3 to 4'].reduce<
    { offset: number; length: number; range: typeof range }[]
  >((found, words) => {
    const last = found.at(-1);
    return [
      ...found,
      { offset: text.indexOf(words, last ? last.offset + last.length : 0), length: words.length, range },
    ];
  }, []);
  assert.deepEqual(outlines(text, { references }), [
    ['p', 'See ', ['lines', 'line 2'], '.'],
    ['ul', ['li', ['strong', ['lines', 'line 2']], ' again'], ['li', ['lines', 'lines 3 to 4']]],
  ]);
  const indexes = nodes(text, { references })
    .flatMap(all)
    .flatMap((node) => (typeof node === 'object' && node.type === 'reference' ? [node.index] : []));
  assert.deepEqual(indexes, [0, 1, 2]);
});

test('a code block knows which change it is, also when another has the same text', () => {
  const text = '```\na\n```\n\n```\nb\n```\n\n```\na\n```\n';
  const edit = {
    textDocument: { uri: 'file:///a' },
    range: { start: { line: 0, character: 0 }, end: { line: 0, character: 0 } },
    newText: '',
  };
  const sent = (block: string, changes: boolean) => ({
    language: '',
    text: `${block}\n`,
    offset: 0,
    length: 0,
    ...(changes && { edit }),
  });
  const found = nodes(text, { code: [sent('a', false), sent('b', true), sent('a', true)] }) as Code[];
  assert.deepEqual(
    found.map(({ change }) => change),
    [undefined, 1, 2],
  );
});

test('however an answer is cut into pieces, it ends as it would have come in one', () => {
  const tricky = [
    ANSWER,
    '1. a\n\n2. b\n\n   c\n\nx\n===\n\n- [ ] todo\n- [x] done\n',
    '```\nnever closed\n\n# no title',
    'a\n\n***bold*** and\nmore\n\n---\n',
  ];
  for (const text of tricky) {
    for (const step of [1, 3, 7]) {
      let pieces: Piece[] = [];
      for (let end = 1; end < text.length + step; end += step) {
        pieces = piecesOf(text.slice(0, end), pieces);
      }
      const shown = (from: readonly Piece[]): unknown[] =>
        from.map(({ token }) => nodeOf(token)).filter((node) => node !== undefined);
      assert.deepEqual(shown(pieces), shown(piecesOf(text)));
    }
  }
});

test('blocks that can no longer change are not read again', () => {
  const before = piecesOf('One.\n\nTwo.\n\nThree.\n\nFo');
  const after = piecesOf('One.\n\nTwo.\n\nThree.\n\nFour.', before);
  assert.equal(after[0], before[0]);
  assert.equal(after[2], before[2]);
  assert.equal(after.at(-1)?.token.raw, 'Four.');
});

test('what a screen reader says of an answer', () => {
  assert.equal(nodes('Use `x`:\n\n```py\nx = 1\n```\n').map(wordsOf).join(' '), 'Use x: Code in py.');
});
