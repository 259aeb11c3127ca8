// What the server suggested, in the words of the protocol, and what becomes of a document with it.

import { insist, until } from './wait.ts';
import type { Window } from './window.ts';
import type { World } from './world.ts';

export interface Position {
  line: number;
  character: number;
}

interface Params {
  textDocument: { uri: string };
  position: Position;
}

export interface Item {
  insertText: string;
  range: { start: Position; end: Position };
}

/** Every answer that the servers gave to a question about a place in a file, cancelled ones left out. */
export function answers(world: World, name: string, at: Position): Item[][] {
  return world.servers
    .all()
    .flatMap((server) => server.exchanges('textDocument/inlineCompletion'))
    .filter(({ params, result }) => result !== undefined && concerns(params as Params, world.uri(name), at))
    .map(({ result }) => (result as { items: Item[] }).items);
}

/** The answer for the end of `text`, which is all of a file: the last one, and as soon as there is one. */
export function answer(world: World, name: string, text: string): Promise<Item[]> {
  return until(`an answer for the end of ${name}`, () => answers(world, name, end(text)).at(-1));
}

/**
 * Types the last character of `text`, of which an open file has the rest, until the server has been asked what comes next.
 *
 * While VS Code's settings change, as they do for a while after its start, it drops such a question now and then.
 */
export async function typeLast(world: World, window: Window, name: string, text: string): Promise<void> {
  const before = answers(world, name, end(text)).length;
  let again = false;
  await insist(
    `an answer for the end of ${name}`,
    async () => {
      if (again) {
        await window.focus();
        await window.edit('Backspace');
      }
      again = true;
      await window.type(text.slice(-1));
    },
    () => answers(world, name, end(text)).length > before,
  );
}

/** The one suggestion for the end of `text`, as soon as there is one. */
export function suggestion(world: World, name: string, text: string): Promise<Item> {
  return until(`a suggestion for the end of ${name}, where this test needs one`, () => answers(world, name, end(text)).at(-1)?.[0]);
}

/** `text` with a suggestion taken at its end. */
export function taken(text: string, { insertText, range }: Item): string {
  const before = text.split('\n').slice(0, range.start.line);
  const line = text.split('\n')[range.start.line] ?? '';
  return [...before, line.slice(0, range.start.character) + insertText].join('\n');
}

/** Waits until the suggestion for the end of `text` is the grey text. The answer is `text` with it taken. */
export async function shown(world: World, window: Window, name: string, text: string): Promise<string> {
  const whole = taken(text, await suggestion(world, name, text));
  await window.ghostIs(drawn(text, whole));
  return whole;
}

/** The lines of grey text that show what comes behind `text`, with tabs drawn as spaces and ends of lines not at all. */
export function drawn(text: string, whole: string, tab = 4): string[] {
  return whole.slice(text.length).split(/\r?\n/).map((line) => line.replaceAll('\t', ' '.repeat(tab)));
}

/** Where a text ends. */
export function end(text: string): Position {
  const lines = text.split('\n');
  return { line: lines.length - 1, character: lines.at(-1)?.length ?? 0 };
}

function concerns({ textDocument, position }: Params, uri: string, at: Position): boolean {
  return textDocument.uri === uri && position.line === at.line && position.character === at.character;
}
