// Runs the tests: all of them, or those with one of the words of the command line in their names. With
// $E2E_SCREENSHOTS, takes the pictures of the README instead.

import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { Runner } from './src/runner.ts';
import { completions } from './tests/completions.ts';
import { switches } from './tests/switches.ts';
import { chats } from './tests/chat.ts';
import { pictures } from './tests/pictures.ts';
import { screenshots } from './tests/screenshots.ts';
import { end, troubles } from './tests/troubles.ts';

const words = process.argv.slice(2);
const everything = [...completions, ...switches, ...chats, ...pictures, ...troubles, ...end];
const all = process.env['E2E_SCREENSHOTS'] ? screenshots : everything;
const chosen = all.filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)));

const runner = new Runner(join(tmpdir(), `gemma-e2e-failures-${process.pid}`));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    console.log(`\nended by ${signal}: nothing is counted`);
    void runner.abandon().finally(() => process.exit(1));
  });
}
try {
  process.exitCode = (await runner.run(chosen)) > 0 ? 1 : 0;
} finally {
  await runner.end();
}
