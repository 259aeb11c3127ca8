// A dialogue as VS Code's own chat has it, turned into a question and what was said before it.

import type { Turn } from '../protocol';

export interface Said {
  readonly role: 'user' | 'model';
  readonly text: string;
  readonly pictures?: readonly Uint8Array[];
}

export interface Asked {
  readonly question: string;
  readonly history: Turn[];
  /** The newest picture that came with the question. */
  readonly picture?: Uint8Array;
}

/**
 * The last thing that the user said is the question. Messages of the same speaker that follow
 * each other are one: the server, like the models, wants them to take turns.
 */
export function questionOf(said: readonly Said[]): Asked {
  const merged = merge(said);
  const last = merged.findLastIndex(({ role }) => role === 'user');
  const asked = merged[last];
  const picture = asked?.pictures?.at(-1);
  return {
    question: asked?.text ?? '',
    history: merged.slice(0, Math.max(last, 0)).map(({ role, text }) => ({ role, text })),
    ...(picture && { picture }),
  };
}

function merge(said: readonly Said[]): Said[] {
  const merged: Said[] = [];
  for (const one of said) {
    const before = merged.at(-1);
    if (before?.role !== one.role) {
      merged.push(one);
      continue;
    }
    merged[merged.length - 1] = {
      role: one.role,
      text: [before.text, one.text].filter((text) => text !== '').join('\n\n'),
      pictures: [...(before.pictures ?? []), ...(one.pictures ?? [])],
    };
  }
  return merged;
}
