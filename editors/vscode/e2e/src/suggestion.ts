// What the server suggested last, in the words of the protocol.

import { until } from './wait.ts';
import type { World } from './world.ts';

interface Position {
  line: number;
  character: number;
}

interface Item {
  insertText: string;
  range?: { start: Position; end: Position };
}

export interface Suggestion {
  /** What it adds at the cursor. */
  text: string;
  items: Item[];
}

/** The suggestion that answers the last request. */
export async function suggestion(world: World): Promise<Suggestion> {
  const server = await world.servers.current();
  return until('a suggestion', () => {
    const last = server.exchanges('textDocument/inlineCompletion').at(-1);
    const items = (last?.result as { items: Item[] } | null | undefined)?.items;
    const first = items?.[0];
    return items && first && { text: first.insertText, items };
  });
}

/** The lines of grey text that show a suggestion, tabs drawn as spaces up to the next stop. */
export function shownBy({ text }: Suggestion, tab: number): string[] {
  return text.split('\n').map((line) => line.replaceAll('\t', ' '.repeat(tab)));
}
