// Where the server is looked for, and in which order.

import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';

import { describe as told, find, type Places } from '../../src/server/find';

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'gemma-find-'));
});

afterEach(() => {
  rmSync(root, { recursive: true });
});

/** Makes a program in a folder of its own. */
function program(folder: string, name = 'gemma-ls'): string {
  const path = join(root, folder, name);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, '');
  chmodSync(path, 0o755);
  return path;
}

function places(other: Partial<Places> = {}): Places {
  return {
    setting: '',
    extension: join(root, 'extension'),
    path: ['bin', 'bin2'].map((name) => join(root, name)).join(delimiter),
    home: join(root, 'home'),
    platform: 'linux',
    ...other,
  };
}

describe('the server is found', () => {
  it('where the setting says, before all others', async () => {
    program('bin');
    program('extension/server');
    const wanted = program('elsewhere', 'my-server');
    const found = await find(places({ setting: ` ${wanted} ` }));
    assert.deepEqual(found, { program: wanted, from: 'setting' });
  });

  it('in the home folder that the setting begins with', async () => {
    const wanted = program('home/.cargo/bin');
    assert.deepEqual(await find(places({ setting: '~/.cargo/bin/gemma-ls' })), { program: wanted, from: 'setting' });
  });

  it('on PATH by the name in the setting', async () => {
    const wanted = program('bin2', 'gemma-ls-nightly');
    assert.deepEqual(await find(places({ setting: 'gemma-ls-nightly' })), { program: wanted, from: 'setting' });
  });

  it('next to the extension, before PATH', async () => {
    program('bin');
    const wanted = program('extension/server');
    assert.deepEqual(await find(places()), { program: wanted, from: 'extension' });
  });

  it('on PATH, in its order, past what cannot be run', async () => {
    mkdirSync(join(root, 'bin', 'gemma-ls'), { recursive: true });
    const wanted = program('bin2');
    const found = await find(places());
    assert.deepEqual(found, { program: wanted, from: 'path' });
    assert.ok('from' in found);
    assert.match(told(found), /found on PATH$/);
  });

  it('under its name on Windows', async () => {
    const wanted = program('bin', 'gemma-ls.exe');
    assert.deepEqual(await find(places({ platform: 'win32' })), { program: wanted, from: 'path' });
  });
});

describe('the user is told', () => {
  it('of a setting that leads nowhere, even where there is another server', async () => {
    program('bin');
    const found = await find(places({ setting: '/nowhere/gemma-ls' }));
    assert.ok('problem' in found);
    assert.match(found.problem, /gemma\.server\.path says \/nowhere\/gemma-ls/);
  });

  it('of a relative path, which would mean another program in each folder', async () => {
    assert.ok('problem' in (await find(places({ setting: './gemma-ls' }))));
  });

  it('where there is none at all', async () => {
    writeFileSync(join(root, 'gemma-ls'), '');
    const found = await find(places({ path: [root, '.', ''].join(delimiter) }));
    assert.ok('problem' in found);
    assert.match(found.problem, /not on PATH/);
  });
});
