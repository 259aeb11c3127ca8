// A screenshot is explained: pasted into the chat, and from the menu of the file.

import { equal, match, notEqual } from 'node:assert/strict';
import { ChatView } from '../src/chat.ts';
import { KEY } from '../src/keys.ts';
import { tests } from '../src/runner.ts';
import { insist, until } from '../src/wait.ts';
import type { World } from '../src/world.ts';

interface Explained {
  text: string;
  width: number;
  height: number;
}

/** The last answer about a picture. */
async function explained(world: World): Promise<{ params: { uri?: string; data?: string }; result: Explained }> {
  const server = await world.servers.current();
  const last = await until('a question about a picture', () => server.exchanges('gemma/explainImage').at(-1));
  notEqual(last.result, undefined, JSON.stringify(last.error));
  return { params: last.params as { uri?: string; data?: string }, result: last.result as Explained };
}

export const pictures = tests({
  'a pasted screenshot is explained': async (world) => {
    const window = await world.window();
    const chat = await ChatView.begin(window);
    const clip = { x: 0, y: 0, width: 200, height: 150 };
    const picture = (await window.page.screenshot({ clip })).toString('base64');
    await window.page.evaluate(async (base64) => {
      const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
      await navigator.clipboard.write([new ClipboardItem({ 'image/png': new Blob([bytes], { type: 'image/png' }) })]);
    }, picture);
    const attached = chat.page.locator('.attachment img');
    await insist('the picture in the chat', (limit) => chat.field.press('Control+v', limit), () => attached.first().isVisible());
    await chat.ask('What is this?');
    const turn = await chat.answered(1);
    const { params, result } = await explained(world);
    notEqual(params.data, undefined);
    equal(`${result.width} x ${result.height}`, '200 x 150');
    notEqual((await turn.locator('.prose').innerText()).trim(), '');
    await turn.locator('img.picture').waitFor();
  },

  'a picture of the project is explained from its menu': async (world) => {
    const window = await world.window();
    const clip = { x: 0, y: 0, width: 160, height: 120 };
    world.write('shot.png', await window.page.screenshot({ clip }));
    await ChatView.begin(window);
    const server = await world.servers.current();
    const before = server.exchanges('gemma/explainImage').length;
    const row = window.page.locator('.explorer-folders-view .monaco-list-row').filter({ hasText: 'shot.png' });
    await insist(
      'the picture in the explorer',
      async () => {
        await window.command('View: Show Explorer');
        // What is written to the disk is noticed late on a busy machine.
        await window.press(KEY.refreshExplorer);
      },
      () => row.isVisible(),
    );
    await insist(
      'a question about the picture',
      async (limit) => {
        await window.press('Escape');
        await row.click({ ...limit, button: 'right' });
        // A click right after the menu has opened would be ignored.
        await window.page.locator('.monaco-menu .action-label').filter({ hasText: 'Explain Screenshot' }).hover(limit);
        await window.press('Enter');
      },
      () => server.exchanges('gemma/explainImage').length > before,
    );
    const chat = await ChatView.of(window);
    await chat.answered(1);
    const { params, result } = await explained(world);
    match(params.uri ?? 'shot.png', /shot\.png$/);
    equal(`${result.width} x ${result.height}`, '160 x 120');
  },
});
