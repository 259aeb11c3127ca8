// Grey text: it is what the server said, and taking all, a word or a line of it leaves the right file on disk.

import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import { KEY } from '../src/keys.ts';
import { tests } from '../src/runner.ts';
import { answer, answers, drawn, end, type Item, type Position, shown, suggestion, taken, typeLast } from '../src/suggestion.ts';
import { BLOCK, LINE, OPEN, WIDE } from '../src/texts.ts';
import { insist, until } from '../src/wait.ts';
import type { Window } from '../src/window.ts';
import type { World } from '../src/world.ts';

/** Opens a new file with all of `text` but its last character, and types that. */
async function typed(world: World, name: string, text: string): Promise<Window> {
  const window = await world.window();
  world.write(name, text.slice(0, -1));
  await window.show(name);
  await typeLast(world, window, name, text);
  return window;
}

interface Hello {
  capabilities: { experimental?: { gemma?: { didMoveCursor?: boolean } } };
}

interface Counts {
  shown: number;
  accepted: number;
  words: number;
}

/** Whether this suggestion for the end of OPEN is the grey text. */
async function isGrey(window: Window, item: Item): Promise<boolean> {
  return isDeepStrictEqual(await window.ghost(), drawn(OPEN, taken(OPEN, item)));
}

/** What is in the file after `text`, which it has to begin with. */
function behind(text: string, content: string): string {
  ok(content.startsWith(text), `the file no longer begins with what was typed:\n${content}`);
  return content.slice(text.length);
}

export const completions = tests({
  "typing shows grey text, and it is the server's": async (world) => {
    const window = await typed(world, 'shown.py', LINE);
    await shown(world, window, 'shown.py', LINE);
  },

  'Tab takes the suggestion, and one undo takes it back': async (world) => {
    const window = await typed(world, 'tab.py', LINE);
    const whole = await shown(world, window, 'tab.py', LINE);
    await window.edit('Tab');
    await window.save();
    equal(world.read('tab.py'), whole);

    await window.edit('Control+z');
    await window.save();
    equal(world.read('tab.py'), LINE);
  },

  'Ctrl+Right takes a word, and the rest stays grey': async (world) => {
    const window = await typed(world, 'word.py', LINE);
    const whole = await shown(world, window, 'word.py', LINE);
    let before = '';
    for (let words = 0; words < 2; words++) {
      await window.edit('Control+ArrowRight');
      await window.save();
      const word = behind(LINE, world.read('word.py'));
      ok(word.length > before.length && word.startsWith(before), `"${word}" is no word more than "${before}"`);
      ok(whole.startsWith(LINE + word) && whole !== LINE + word, `"${word}" is no beginning of the suggestion`);
      await window.ghostIs(drawn(LINE + word, whole));
      before = word;
    }
  },

  'Alt+] goes to the next suggestion, Alt+[ back, and Tab takes what is shown': async (world) => {
    const window = await typed(world, 'others.py', OPEN);
    const first = drawn(OPEN, taken(OPEN, await suggestion(world, 'others.py', OPEN)));
    await window.ghostIs(first);
    // The key asks for others. Where it comes once too often, it goes around.
    const second = await insist('the second suggestion', () => window.press('Alt+BracketRight'), async () => {
      const item = answers(world, 'others.py', end(OPEN)).at(-1)?.[1];
      return item !== undefined && (await isGrey(window, item)) && item;
    });
    const whole = taken(OPEN, second);
    await insist('the first one again', () => window.press('Alt+BracketLeft'), async () => {
      return isDeepStrictEqual(await window.ghost(), first);
    });
    await insist('the second one again', () => window.press('Alt+BracketRight'), () => isGrey(window, second));
    await window.edit('Tab');
    await window.save();
    equal(world.read('others.py'), whole);
  },

  'a key takes a line of several, and the rest stays grey': async (world) => {
    await world.configure({ 'gemma.multiLine': 'always' });
    const window = await typed(world, 'line.py', BLOCK);
    const whole = await shown(world, window, 'line.py', BLOCK);
    ok(behind(BLOCK, whole).includes('\n'), 'the suggestion is to have several lines');
    const [line] = behind(BLOCK, whole).split('\n');
    await window.edit(KEY.acceptLine);
    await window.save();
    const text = world.read('line.py');
    equal(behind(BLOCK, text).trimEnd(), line);
    await shown(world, window, 'line.py', text);
  },

  'Escape dismisses the suggestion': async (world) => {
    const window = await typed(world, 'escape.py', LINE);
    await shown(world, window, 'escape.py', LINE);
    await window.dismiss();
    await window.save();
    equal(world.read('escape.py'), LINE);
  },

  'typing on over a suggestion keeps the rest of it': async (world) => {
    const window = await typed(world, 'over.py', LINE);
    const next = behind(LINE, await shown(world, window, 'over.py', LINE)).slice(0, 3);
    await window.type(next);
    const whole = await shown(world, window, 'over.py', LINE + next);
    await window.edit('Tab');
    await window.save();
    equal(world.read('over.py'), whole);
  },

  'Tab right behind a key leaves no character too many': async (world) => {
    const window = await typed(world, 'fast.py', LINE);
    const next = behind(LINE, await shown(world, window, 'fast.py', LINE)).slice(0, 4);
    let text = LINE;
    for (const character of next) {
      // Nothing is waited for between the two: that is what this test is about.
      await window.press(character === ' ' ? 'Space' : character);
      await window.press('Tab');
      await window.save();
      text += character;
      // Tab meant either what was suggested at that place, then or before, or an indentation.
      const possible = possibilities(world, 'fast.py', text);
      const content = world.read('fast.py');
      ok(possible.has(content), `not one of ${JSON.stringify([...possible])}: ${JSON.stringify(content)}`);
      await window.edit('Control+z');
      await window.save();
      if (world.read('fast.py') !== text) {
        return;
      }
    }
  },

  'characters of several bytes are not harmed': async (world) => {
    const window = await typed(world, 'wide.py', WIDE);
    const whole = await shown(world, window, 'wide.py', WIDE);
    await window.edit('Tab');
    await window.save();
    equal(world.read('wide.py'), whole);
  },

  'lines of a file with CRLF still end so': async (world) => {
    await world.configure({ 'gemma.multiLine': 'always' });
    const window = await typed(world, 'crlf.py', BLOCK.replaceAll('\n', '\r\n'));
    const whole = await shown(world, window, 'crlf.py', BLOCK);
    ok(behind(BLOCK, whole).includes('\n'), 'the suggestion is to have several lines');
    await window.edit('Tab');
    await window.save();
    equal(world.read('crlf.py'), whole.replaceAll(/\r?\n/g, '\r\n'));
  },

  'what is shown and what is taken of it is counted': async (world) => {
    const window = await world.window();
    const server = await world.servers.current();
    const statistics = (): Promise<Counts> => server.ask<Counts>('gemma/statistics', {});
    const before = await statistics();
    const text = `# counted\n${LINE}`;
    await typed(world, 'counted.py', text);
    const whole = await shown(world, window, 'counted.py', text);
    await window.edit('Control+ArrowRight');
    await window.save();
    await window.ghostIs(drawn(world.read('counted.py'), whole));
    await window.edit('Tab');
    await window.save();
    await until('the server to have counted it', async () => {
      const { shown, accepted, words } = await statistics();
      return shown === before.shown + 1 && accepted === before.accepted + 1 && words === before.words + 1;
    });
  },

  'a server that asks for it hears where the cursor rests, and of nowhere that is typed': async (world) => {
    const window = await world.window();
    world.write('rest.py', LINE);
    await window.show('rest.py');
    const server = await world.servers.current();
    const hello = server.exchanges('initialize')[0]?.result as Hello;
    const asks = hello.capabilities.experimental?.gemma?.didMoveCursor === true;
    const uri = world.uri('rest.py');
    const rests = (): string[] => {
      const told = server.told('gemma/didMoveCursor') as { textDocument: { uri: string }; position: Position }[];
      return told.filter(({ textDocument }) => textDocument.uri === uri).map(({ position }) => JSON.stringify(position));
    };
    const { line, character } = end(LINE);
    const rested = (position: Position): Promise<unknown> => {
      return until('the place to be told', () => !asks || rests().includes(JSON.stringify(position)));
    };
    await rested({ line, character });
    await window.type('abc');
    await window.edit('Control+Home');
    await rested({ line: 0, character: 0 });
    const typed = [1, 2, 3].map((more) => JSON.stringify({ line, character: character + more }));
    deepEqual(rests().filter((place) => typed.includes(place)), []);
    equal(rests().length > 0, asks);
  },

  'a file of secrets gets nothing': async (world) => {
    const name = '.env';
    const text = 'FIRST_KEY=abcdefgh\nSECOND_KEY=abcdefgh\nTHIRD_KEY=abcd';
    const window = await typed(world, name, text);
    deepEqual(await answer(world, name, text), []);
    equal(await window.ghost(), undefined);
    await until('the status bar to tell of it', async () => /secret/i.test(await window.statusText()));
    // Tab is a tab where there is nothing to take.
    await window.edit('Tab');
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
