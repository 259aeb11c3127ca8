// What goes wrong: no server, no model, a server that is killed; and two windows at once.

import { equal, match, notEqual, ok } from 'node:assert/strict';
import { tests } from '../src/runner.ts';
import { shown, typeLast } from '../src/suggestion.ts';
import { LINE } from '../src/texts.ts';
import { until } from '../src/wait.ts';

export const troubles = tests({
  'a server that is killed comes back, with what was not saved': async (world) => {
    const window = await world.window();
    const text = `# not saved\n${LINE}`;
    world.write('killed.py', '');
    await window.show('killed.py');
    await window.paste(text.slice(0, -1));
    const killed = await world.servers.current();
    killed.kill();
    await until('the server to be gone', () => !killed.alive);
    // Asked of nobody, and answered without another key once there is a server.
    await window.type(text.slice(-1));
    const server = await until('another server', async () => {
      const current = await world.servers.current();
      return current.pid !== killed.pid && current;
    });
    const [opened] = await until('the document to be open again', () => {
      const documents = server.told('textDocument/didOpen') as { textDocument: { uri: string; text: string } }[];
      return documents.length > 0 && documents.filter(({ textDocument }) => textDocument.uri === world.uri('killed.py'));
    });
    ok(opened?.textDocument.text.startsWith(text.slice(0, -1)), 'what was not saved is gone');
    const whole = await shown(world, window, 'killed.py', text);
    await window.edit('Tab');
    await window.save();
    equal(world.read('killed.py'), whole);
  },

  'two windows at once have a server each': async (world) => {
    const first = await world.window();
    world.write('first.py', LINE.slice(0, -1));
    world.write('second.py', LINE.slice(0, -1));
    await first.show('first.py');
    const one = await world.servers.current();
    const second = await world.open();
    await second.ready();
    const two = await world.servers.current();
    notEqual(one.pid, two.pid);
    await second.show('second.py');
    await typeLast(world, second, 'second.py', LINE);
    await shown(world, second, 'second.py', LINE);
    await first.page.bringToFront();
    await first.focus();
    await typeLast(world, first, 'first.py', LINE);
    await shown(world, first, 'first.py', LINE);
    await shown(world, second, 'second.py', LINE);
    equal(one.alive && two.alive, true);
  },

  'a model that is not there is told about, with what to do': async (world) => {
    const window = await world.open('without-model', { 'gemma.model': '/nowhere/gemma.gguf' });
    await until('the status bar to tell of it', async () => (await window.statusText()).includes('/nowhere/gemma.gguf'));
    const server = await world.servers.current();
    const { model } = await server.ask<{ model: { state: string; error: string } }>('gemma/status', {});
    equal(model.state, 'failed');
    match(await window.statusText(), /Check the path/);
  },

  'a server that is not there is told about, with what to do': async (world) => {
    const window = await world.open('without-server', { 'gemma.server.path': '/nowhere/gemma-ls' });
    await until('the status bar to tell of it', async () => (await window.statusText()).includes('/nowhere/gemma-ls'));
    match(await window.statusText(), /gemma\.server\.path/);
    await window.openMenu('Check the server');
    await window.closeMenu();
  },
});

/** Runs after all others: there is no VS Code after it. */
export const end = tests({
  'when VS Code ends, no server is left': async (world) => {
    const window = await world.window();
    await window.ready();
    await world.end();
    await until('the servers to end', () => world.servers.all().every((server) => !server.exists));
  },
});
