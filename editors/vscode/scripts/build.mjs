// Bundles the extension and the chat's web page into dist/, and with --tests the unit tests into dist-tests/.

import { readdirSync, rmSync } from 'node:fs';
import { build, context } from 'esbuild';

const watch = process.argv.includes('--watch');

const common = { bundle: true, logLevel: 'warning', legalComments: 'none' };
const shipped = { ...common, outdir: 'dist', minify: !watch, sourcemap: watch };
const forNode = { platform: 'node', format: 'cjs', target: 'node20' };

const product = [
  { ...shipped, ...forNode, entryPoints: { extension: 'src/extension.ts' }, external: ['vscode'] },
  {
    ...shipped,
    entryPoints: { 'webview/main': 'webview/main.ts', 'webview/style': 'webview/style.css' },
    platform: 'browser',
    format: 'iife',
    target: 'chrome120',
  },
];

const tests = {
  ...common,
  ...forNode,
  entryPoints: readdirSync('tests/unit')
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => `tests/unit/${name}`),
  outdir: 'dist-tests',
  sourcemap: 'inline',
};

if (process.argv.includes('--tests')) {
  rmSync('dist-tests', { recursive: true, force: true });
  await build(tests);
} else if (watch) {
  await Promise.all(product.map(async (options) => (await context(options)).watch()));
} else {
  rmSync('dist', { recursive: true, force: true });
  await Promise.all(product.map(build));
}
