// The statistics in sentences.

import type { Statistics } from '../protocol';

/** Languages beyond these are summed up. */
const LANGUAGES = 5;

export function headline({ characters, since }: Statistics): string {
  return `Gemma has written ${number(characters)} characters for you since ${since}.`;
}

export function detail(statistics: Statistics): string {
  const { shown, accepted, words, lines, wholes, timeSavedMs } = statistics;
  const share = shown === 0 ? '' : ` (${Math.round((100 * accepted) / shown)}%)`;
  return [
    `Suggestions shown: ${number(shown)}. Taken, at least in part: ${number(accepted)}${share}.`,
    `Taken as a whole ${number(wholes)}, by line ${number(lines)}, by word ${number(words)} times.`,
    `Time saved, at 40 words a minute: ${duration(timeSavedMs)}.`,
    ...byLanguage(statistics.languages),
    '',
    'The numbers stay on this machine, and hold for all editors together.',
  ].join('\n');
}

function byLanguage(languages: Statistics['languages']): string[] {
  const sorted = Object.entries(languages).sort(([, a], [, b]) => b.characters - a.characters);
  const named = sorted.slice(0, LANGUAGES).map(([id, { characters }]) => `${id} ${number(characters)}`);
  const others = sorted.slice(LANGUAGES).reduce((sum, [, { characters }]) => sum + characters, 0);
  const all = others > 0 ? [...named, `others ${number(others)}`] : named;
  return all.length === 0 ? [] : [`Characters by language: ${all.join(', ')}.`];
}

function duration(milliseconds: number): string {
  const minutes = Math.floor(milliseconds / 60_000);
  if (minutes === 0) {
    return `${Math.round(milliseconds / 1000)} s`;
  }
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function number(value: number): string {
  return value.toLocaleString('en');
}
