// Coloured code: every character of it is there, line by line.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { highlighted } from '../../webview/highlight';

const textOf = (language: string, code: string): string =>
  highlighted(language, code)
    .map((words) => words.map(({ text }) => text).join(''))
    .join('\n');

test('colouring loses nothing, also where a word spans lines', () => {
  const code = '/* one\n   two */\nfn main() {\n\n    let s = "a\nb";\n}\n';
  assert.equal(textOf('rust', code), code);
  assert.equal(highlighted('rust', code)[1]?.[0]?.style, 'hljs-comment');
});

test('languages are known by their usual names, and others stay plain', () => {
  for (const name of ['rust', 'rs', 'Python', 'py', 'js', 'tsx', 'c', 'c++', 'shell', 'sh', 'html', 'toml', 'jsonc']) {
    const styled = highlighted(name, '<a b="c"> return "a" # true // 1\nif x == 1 { }')
      .flat()
      .some(({ style }) => style !== '');
    assert.ok(styled, `${name} is coloured`);
  }
  assert.deepEqual(highlighted('klingon', 'if'), [[{ text: 'if', style: '' }]]);
  assert.deepEqual(highlighted('', ''), [[]]);
});
