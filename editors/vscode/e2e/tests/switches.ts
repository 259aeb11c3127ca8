// What the menu of the status bar item switches, and what it tells.

import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { tests } from '../src/runner.ts';
import { answer, shown, typeLast } from '../src/suggestion.ts';
import { APART, LINE } from '../src/texts.ts';
import { insist, until } from '../src/wait.ts';
import type { Window } from '../src/window.ts';
import type { World } from '../src/world.ts';

interface Status {
  settings: { languagesOff: string[]; trigger: string };
  document: { off?: string; sentence?: string } | null;
}

async function status(world: World, name: string): Promise<Status> {
  const server = await world.servers.current();
  return server.ask<Status>('gemma/status', { textDocument: { uri: world.uri(name) } });
}

/** Types the last character of `text` into a new file, where nothing is to be suggested. */
async function nothingFor(world: World, window: Window, name: string, text: string): Promise<void> {
  world.write(name, text.slice(0, -1));
  await window.show(name);
  await typeLast(world, window, name, text);
  deepEqual(await answer(world, name, text), []);
  equal(await window.ghost(), undefined);
}

export const switches = tests({
  'a language is turned off in the menu, is silent, says why, and is turned on again': async (world) => {
    const window = await world.window();
    world.restoreSettings();
    world.write('before.py', APART);
    await window.show('before.py');
    await window.choose('Turn off for python');
    await until('the server to know', async () => (await status(world, 'before.py')).settings.languagesOff.includes('python'));

    await nothingFor(world, window, 'off.py', LINE);
    const { document } = await status(world, 'off.py');
    equal(document?.off, 'languagesOff');
    const sentence = document?.sentence ?? '?';
    await until('the status bar to say so', async () => (await window.statusText()).includes(sentence));
    await insist(
      'the reason',
      () => window.choose('Why was nothing shown?'),
      async () => (await window.notices()).some((notice) => notice.includes(sentence)),
    );

    await window.focus();
    await window.choose('Turn on for python');
    await until('the server to know', async () => (await status(world, 'off.py')).settings.languagesOff.length === 0);
    await window.focus();
    await window.edit('Backspace');
    await typeLast(world, window, 'off.py', LINE);
    await shown(world, window, 'off.py', LINE);
  },

  'with manual completion nothing comes by itself, and Alt+\\ asks': async (world) => {
    const window = await world.window();
    world.restoreSettings();
    world.write('before.py', APART);
    await window.show('before.py');
    await window.choose('Complete only when asked');
    await until('the server to know', async () => (await status(world, 'before.py')).settings.trigger === 'manual');

    await nothingFor(world, window, 'manual.py', LINE);
    await window.focus();
    await insist('grey text that was asked for', () => window.press('Alt+Backslash'), () => window.ghost());
    await shown(world, window, 'manual.py', LINE);

    await window.choose('Complete automatically');
    await until('the server to know', async () => (await status(world, 'manual.py')).settings.trigger === 'automatic');
  },

  'the menu shows the model, the device and all that can be done': async (world) => {
    const window = await world.window();
    world.write('menu.py', LINE);
    await window.show('menu.py');
    const server = await world.servers.current();
    const { model } = await server.ask<{ model: { name: string; device: string } }>('gemma/status', {});
    match(await window.statusText(), new RegExp(model.name));
    const rows = await window.openMenu();
    const entries = ['Switch model', 'Switch device', 'Open the chat', 'Statistics', 'Restart the server', 'Open the log'];
    for (const entry of [model.name, model.device, ...entries]) {
      ok(rows.some((row) => row.includes(entry)), `"${entry}" is not in the menu: ${rows.join('; ')}`);
    }
    await window.closeMenu();
  },

  'a suggestion that takes its time is still shown': async (world) => {
    const window = await world.window();
    world.write('late.py', LINE.slice(0, -1));
    await window.show('late.py');
    world.servers.delay(2_000);
    await typeLast(world, window, 'late.py', LINE);
    await shown(world, window, 'late.py', LINE);
  },
});
