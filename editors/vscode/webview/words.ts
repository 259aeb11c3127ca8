// The lines of text around an answer: what went in, what was left out, how it ended.

import { linesOf, type Answer, type Turn } from '../src/chat/model';
import type { Context } from '../src/protocol';

const NUMBER = new Intl.NumberFormat('en');

/** "lib.rs, lines 1 to 80 of 200, selection lines 3 to 5, 2 earlier questions, 1,234 tokens" */
export function contextWords(context: Context): string {
  const { path, lines, selection, turns, promptTokens } = context;
  const words = [
    path ? (path.split(/[\\/]/).at(-1) ?? path) : 'No file',
    lines &&
      (lines.first === 1 && lines.last === lines.of
        ? `all ${count(lines.of, 'line')}`
        : `${linesOf(lines)} of ${NUMBER.format(lines.of)}`),
    selection && `selected ${linesOf(selection)}`,
    turns > 0 && count(turns, 'earlier question'),
    count(promptTokens, 'token'),
  ];
  return words.filter((word) => typeof word === 'string').join(', ');
}

/** What there was no room for; nothing where everything fitted. */
export function droppedWords({ dropped }: Context): string {
  const words = [
    dropped.lines_above > 0 && `${count(dropped.lines_above, 'line')} above`,
    dropped.lines_below > 0 && `${count(dropped.lines_below, 'line')} below`,
    dropped.turns > 0 && count(dropped.turns, 'earlier question'),
  ].filter((word) => typeof word === 'string');
  return words.length > 0 ? `Left out for want of room: ${words.join(', ')}` : '';
}

export function endWords(answer: Answer): string {
  const model = answer.model ? `Answered by ${answer.model}` : '';
  if (answer.state === 'stopped') {
    return join(model, 'stopped');
  }
  if (answer.finishReason === 'length') {
    return join(model, 'as long as an answer may get');
  }
  if (answer.finishReason === 'deadline') {
    return join(model, 'as far as the time allowed');
  }
  return model;
}

function join(model: string, end: string): string {
  return model ? `${model}, ${end}` : end.charAt(0).toUpperCase() + end.slice(1);
}

/** What a screen reader says when an answer has ended. */
export function endAnnouncement({ answer }: Turn, words: string): string {
  if (answer.state === 'failed') {
    return `No answer. ${answer.failure ?? ''}`;
  }
  if (answer.state === 'stopped') {
    return 'The answer was stopped.';
  }
  return words ? `Answer: ${words}` : 'The answer is empty.';
}

function count(number: number, what: string): string {
  return `${NUMBER.format(number)} ${what}${number === 1 ? '' : 's'}`;
}
