// VS Code's start does not wait for what is needed later.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';

it('the language client is imported at run time by one file only, which is imported when the server starts', () => {
  const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  const importing = (what: RegExp) => files.filter((file) => what.test(readFileSync(join('src', file), 'utf8')));
  assert.deepEqual(importing(/^import (?!type )[^;]*from 'vscode-languageclient/m), [join('server', 'connection.ts')]);
  assert.deepEqual(importing(/^import (?!type )[^;]*from '[./]*\/connection'/m), []);
  assert.deepEqual(importing(/await import\('\.\/connection'\)/), [join('server', 'supervisor.ts')]);
});
