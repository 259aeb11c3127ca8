// What the menu of the status bar item switches, and what it tells.

import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { tests } from '../src/runner.ts';
import { answer, drawn, suggestion, taken } from '../src/suggestion.ts';
import { LINE } from '../src/texts.ts';
import { until } from '../src/wait.ts';
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
  await window.type(text.slice(-1));
  deepEqual(await answer(world, name, text), []);
  equal(await window.ghost(), undefined);
}

export const switches = tests({
  'a language is turned off in the menu, is silent, says why, and is turned on again': async (world) => {
    const window = await world.window();
    world.restoreSettings();
    world.write('before.py', LINE);
    await window.show('before.py');
    await window.choose('Turn off for python');
    await until('the server to know', async () => (await status(world, 'before.py')).settings.languagesOff.includes('python'));

    await nothingFor(world, window, 'off.py', LINE);
    const { document } = await status(world, 'off.py');
    equal(document?.off, 'languagesOff');
    await until('the status bar to say so', async () => (await window.statusText()).includes(document?.sentence ?? '?'));
    await window.choose('Why was nothing shown?');
    await until('the reason', async () => (await window.notices()).some((notice) => notice.includes(document?.sentence ?? '?')));

    await window.focus();
    await window.choose('Turn on for python');
    await until('the server to know', async () => (await status(world, 'off.py')).settings.languagesOff.length === 0);
    await window.focus();
    await window.press('Backspace');
    await window.type(LINE.slice(-1));
    deepEqual(await window.ghostShown(), drawn(LINE, taken(LINE, await suggestion(world, 'off.py', LINE))));
  },

  'with manual completion nothing comes by itself, and Alt+\\ asks': async (world) => {
    const window = await world.window();
    world.restoreSettings();
    world.write('before.py', LINE);
    await window.show('before.py');
    await window.choose('Complete only when asked');
    await until('the server to know', async () => (await status(world, 'before.py')).settings.trigger === 'manual');

    await nothingFor(world, window, 'manual.py', LINE);
    await window.press('Alt+Backslash');
    const lines = await window.ghostShown();
    deepEqual(lines, drawn(LINE, taken(LINE, await suggestion(world, 'manual.py', LINE))));

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
    await window.openMenu();
    ok(await window.row(model.name).count(), 'the model is not in the menu');
    ok(await window.row(model.device).count(), 'the device is not in the menu');
    for (const entry of ['Switch model', 'Switch device', 'Open the chat', 'Statistics', 'Restart the server', 'Open the log']) {
      ok(await window.row(entry).count(), `"${entry}" is not in the menu`);
    }
    await window.press('Escape');
  },

  'a suggestion that takes its time is still shown': async (world) => {
    const window = await world.window();
    world.write('late.py', LINE.slice(0, -1));
    await window.show('late.py');
    world.servers.delay(2_000);
    await window.type(LINE.slice(-1));
    deepEqual(await window.ghostShown(), drawn(LINE, taken(LINE, await suggestion(world, 'late.py', LINE))));
  },
});
