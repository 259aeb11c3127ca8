// Source code to lines of coloured words.

import type { ElementContent } from 'hast';
import bash from 'highlight.js/lib/languages/bash';
import cpp from 'highlight.js/lib/languages/cpp';
import csharp from 'highlight.js/lib/languages/csharp';
import css from 'highlight.js/lib/languages/css';
import diff from 'highlight.js/lib/languages/diff';
import go from 'highlight.js/lib/languages/go';
import ini from 'highlight.js/lib/languages/ini';
import java from 'highlight.js/lib/languages/java';
import json from 'highlight.js/lib/languages/json';
import kotlin from 'highlight.js/lib/languages/kotlin';
import lua from 'highlight.js/lib/languages/lua';
import python from 'highlight.js/lib/languages/python';
import ruby from 'highlight.js/lib/languages/ruby';
import rust from 'highlight.js/lib/languages/rust';
import sql from 'highlight.js/lib/languages/sql';
import typescript from 'highlight.js/lib/languages/typescript';
import xml from 'highlight.js/lib/languages/xml';
import yaml from 'highlight.js/lib/languages/yaml';
import { createLowlight } from 'lowlight';

export interface Word {
  readonly text: string;
  /** Class names of highlight.js. */
  readonly style: string;
}

const lowlight = createLowlight({
  bash,
  cpp,
  csharp,
  css,
  diff,
  go,
  ini,
  java,
  json,
  kotlin,
  lua,
  python,
  ruby,
  rust,
  sql,
  typescript,
  xml,
  yaml,
});
// Each of these is coloured well enough by a larger sister, and need not be carried along.
lowlight.registerAlias({
  bash: ['shell', 'shellscript', 'console', 'sh-session', 'fish'],
  cpp: ['c', 'h', 'objective-c', 'cuda'],
  css: ['scss', 'less'],
  ini: ['dosini', 'properties'],
  json: ['jsonc', 'json5'],
  typescript: ['javascript', 'js', 'jsx', 'mjs', 'cjs', 'javascriptreact', 'typescriptreact'],
  xml: ['vue', 'svelte'],
});

/** Longer blocks stay plain: colouring is done again while a block grows. */
const LONGEST = 50_000;

export function highlighted(language: string, text: string): Word[][] {
  const lines: Word[][] = [[]];
  const name = language.toLowerCase();
  if (lowlight.registered(name) && text.length <= LONGEST) {
    collect(lowlight.highlight(name, text).children as ElementContent[], '', lines);
  } else {
    addText(text, '', lines);
  }
  return lines;
}

function collect(nodes: readonly ElementContent[], style: string, lines: Word[][]): void {
  for (const node of nodes) {
    if (node.type === 'text') {
      addText(node.value, style, lines);
    }
    if (node.type === 'element') {
      const names = node.properties['className'];
      collect(node.children, Array.isArray(names) ? names.join(' ') : style, lines);
    }
  }
}

function addText(text: string, style: string, lines: Word[][]): void {
  for (const [index, part] of text.split('\n').entries()) {
    if (index > 0) {
      lines.push([]);
    }
    if (part) {
      lines.at(-1)?.push({ text: part, style });
    }
  }
}
