// Grey text: it is what the server said, and taking all, a word or a line of it leaves the right file on disk.

import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { KEY } from '../src/keys.ts';
import { tests } from '../src/runner.ts';
import { answer, answers, drawn, suggestion, taken } from '../src/suggestion.ts';
import { BLOCK, LINE, OPEN, WIDE } from '../src/texts.ts';
import { until } from '../src/wait.ts';
import type { Window } from '../src/window.ts';
import type { World } from '../src/world.ts';

/** Opens a new file with all of `text` but its last character, and types that. */
async function typed(world: World, name: string, text: string): Promise<Window> {
  const window = await world.window();
  world.write(name, text.slice(0, -1));
  await window.show(name);
  await window.type(text.slice(-1));
  return window;
}

interface Counts {
  shown: number;
  accepted: number;
  words: number;
}

/** What is in the file after `text`, which it has to begin with. */
function behind(text: string, content: string): string {
  ok(content.startsWith(text), `the file no longer begins with what was typed:\n${content}`);
  return content.slice(text.length);
}

export const completions = tests({
  "typing shows grey text, and it is the server's": async (world) => {
    const window = await typed(world, 'shown.py', LINE);
    const lines = await window.ghostShown();
    deepEqual(lines, drawn(LINE, taken(LINE, await suggestion(world, 'shown.py', LINE))));
  },

  'Tab takes the suggestion, and one undo takes it back': async (world) => {
    const window = await typed(world, 'tab.py', LINE);
    await window.ghostShown();
    await window.press('Tab');
    await window.save();
    equal(world.read('tab.py'), taken(LINE, await suggestion(world, 'tab.py', LINE)));

    await window.press('Control+z');
    await window.save();
    equal(world.read('tab.py'), LINE);
  },

  'Ctrl+Right takes a word, and the rest stays grey': async (world) => {
    const window = await typed(world, 'word.py', LINE);
    await window.ghostShown();
    const whole = taken(LINE, await suggestion(world, 'word.py', LINE));
    let before = '';
    for (let words = 0; words < 2; words++) {
      await window.press('Control+ArrowRight');
      await window.save();
      const word = behind(LINE, world.read('word.py'));
      ok(word.length > before.length && word.startsWith(before), `"${word}" is no word more than "${before}"`);
      ok(whole.startsWith(LINE + word) && whole !== LINE + word, `"${word}" is no beginning of the suggestion`);
      deepEqual(await window.ghostShown(), drawn(LINE + word, whole));
      before = word;
    }
  },

  'Alt+] goes to the next suggestion, Alt+[ back, and Tab takes what is shown': async (world) => {
    const window = await typed(world, 'others.py', OPEN);
    const first = drawn(OPEN, taken(OPEN, await suggestion(world, 'others.py', OPEN)));
    await window.ghostIs(first);
    await window.press('Alt+BracketRight');
    const [, second] = await until('several suggestions', async () => {
      const items = await answer(world, 'others.py', OPEN);
      return items.length > 1 ? items : undefined;
    });
    ok(second);
    await window.ghostIs(drawn(OPEN, taken(OPEN, second)));
    await window.press('Alt+BracketLeft');
    await window.ghostIs(first);
    await window.press('Alt+BracketRight');
    await window.ghostIs(drawn(OPEN, taken(OPEN, second)));
    await window.press('Tab');
    await window.save();
    equal(world.read('others.py'), taken(OPEN, second));
  },

  'a key takes a line of several, and the rest stays grey': async (world) => {
    await world.configure({ 'gemma.multiLine': 'always' });
    const window = await typed(world, 'line.py', BLOCK);
    await until('grey text of several lines', async () => ((await window.ghost())?.length ?? 0) > 1);
    const whole = taken(BLOCK, await suggestion(world, 'line.py', BLOCK));
    const [line] = behind(BLOCK, whole).split('\n');
    await window.press(KEY.acceptLine);
    await window.save();
    equal(behind(BLOCK, world.read('line.py')).trimEnd(), line);
    const text = world.read('line.py');
    const rest = taken(text, await suggestion(world, 'line.py', text));
    await window.ghostIs(drawn(text, rest));
  },

  'Escape dismisses the suggestion': async (world) => {
    const window = await typed(world, 'escape.py', LINE);
    await window.ghostShown();
    await window.press('Escape');
    await window.ghostGone();
    await window.save();
    equal(world.read('escape.py'), LINE);
  },

  'typing on over a suggestion keeps the rest of it': async (world) => {
    const window = await typed(world, 'over.py', LINE);
    await window.ghostShown();
    const next = behind(LINE, taken(LINE, await suggestion(world, 'over.py', LINE))).slice(0, 3);
    await window.type(next);
    const text = LINE + next;
    const whole = taken(text, await suggestion(world, 'over.py', text));
    await window.ghostIs(drawn(text, whole));
    await window.press('Tab');
    await window.save();
    equal(world.read('over.py'), whole);
  },

  'Tab right behind a key leaves no character too many': async (world) => {
    const window = await typed(world, 'fast.py', LINE);
    await window.ghostShown();
    const next = behind(LINE, taken(LINE, await suggestion(world, 'fast.py', LINE))).slice(0, 4);
    let text = LINE;
    for (const character of next) {
      await window.type(character);
      await window.press('Tab');
      await window.save();
      text += character;
      // Tab meant either what was suggested at that place, then or before, or an indentation.
      const possible = possibilities(world, 'fast.py', text);
      const content = world.read('fast.py');
      ok(possible.has(content), `not one of ${JSON.stringify([...possible])}: ${JSON.stringify(content)}`);
      await window.press('Control+z');
      await window.save();
      if (world.read('fast.py') !== text) {
        return;
      }
    }
  },

  'characters of several bytes are not harmed': async (world) => {
    const window = await typed(world, 'wide.py', WIDE);
    const lines = await window.ghostShown();
    const whole = taken(WIDE, await suggestion(world, 'wide.py', WIDE));
    deepEqual(lines, drawn(WIDE, whole));
    await window.press('Tab');
    await window.save();
    equal(world.read('wide.py'), whole);
  },

  'lines of a file with CRLF still end so': async (world) => {
    await world.configure({ 'gemma.multiLine': 'always' });
    const window = await typed(world, 'crlf.py', BLOCK.replaceAll('\n', '\r\n'));
    await until('grey text of several lines', async () => ((await window.ghost())?.length ?? 0) > 1);
    const whole = taken(BLOCK, await suggestion(world, 'crlf.py', BLOCK));
    await window.press('Tab');
    await window.save();
    equal(world.read('crlf.py'), whole.replaceAll(/\r?\n/g, '\r\n'));
  },

  'what is shown and what is taken of it is counted': async (world) => {
    const window = await world.window();
    const server = await world.servers.current();
    const statistics = (): Promise<Counts> => server.ask<Counts>('gemma/statistics', {});
    const before = await statistics();
    await typed(world, 'counted.py', `# counted\n${LINE}`);
    await window.ghostShown();
    await window.press('Control+ArrowRight');
    await window.save();
    await window.ghostShown();
    await window.press('Tab');
    await window.save();
    await until('the server to have counted it', async () => {
      const { shown, accepted, words } = await statistics();
      return shown === before.shown + 1 && accepted === before.accepted + 1 && words === before.words + 1;
    });
  },

  'a file of secrets gets nothing': async (world) => {
    const name = '.env';
    const text = 'FIRST_KEY=abcdefgh\nSECOND_KEY=abcdefgh\nTHIRD_KEY=abcd';
    const window = await typed(world, name, text);
    deepEqual(await answer(world, name, text), []);
    equal(await window.ghost(), undefined);
    await until('the status bar to tell of it', async () => /secret/i.test(await window.statusText()));
    // Tab is a tab where there is nothing to take.
    await window.press('Tab');
    await window.save();
    match(world.read(name).slice(text.length), /^[ \t]+$/);
  },
});

/** The contents that the file may have after Tab was pressed behind `text`. */
function possibilities(world: World, name: string, text: string): Set<string> {
  const lines = text.split('\n');
  const line = lines.length - 1;
  const length = lines.at(-1)?.length ?? 0;
  const all = new Set([`${text}\t`, `${text}${' '.repeat(4 - (length % 4))}`]);
  for (let character = length; character > length - 6; character--) {
    const earlier = text.slice(0, text.length - (length - character));
    for (const item of answers(world, name, { line, character }).flat()) {
      const whole = taken(earlier, item);
      if (whole.startsWith(text)) {
        all.add(whole);
      }
    }
  }
  return all;
}
