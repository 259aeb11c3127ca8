// Conversations: how an answer grows and ends, what is sent along, how things are called.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  advance,
  EMPTY_ANSWER,
  historyOf,
  titleOf,
  withoutTurn,
  withTurn,
  wording,
  type Answer,
  type AnswerEvent,
  type Conversation,
  type Turn,
} from '../../src/chat/model';
import type { ChatAnswer, Context } from '../../src/protocol';

const CONTEXT: Context = {
  uri: 'file:///a/lib.rs',
  turns: 0,
  promptTokens: 12,
  dropped: { turns: 0, lines_above: 0, lines_below: 0 },
};

function after(...events: AnswerEvent[]): Answer {
  return events.reduce(advance, EMPTY_ANSWER);
}

function chatAnswer(changes: Partial<ChatAnswer> = {}): ChatAnswer {
  const usual = { chatId: 'c', model: 'm', finishReason: 'stop', context: CONTEXT } as const;
  return { ...usual, text: 'Whole.', notices: [], code: [], references: [], ...changes };
}

function turn(id: string, changes: Partial<Turn> = {}): Turn {
  return { id, asked: `Question ${id}`, request: {}, answer: EMPTY_ANSWER, ...changes };
}

function conversation(...turns: Turn[]): Conversation {
  return { id: 'c', created: 1, updated: 1, turns };
}

test('text is put behind text, and takes the place of what is being done', () => {
  const steps = after({ kind: 'step', message: 'Loading' });
  assert.equal(steps.step, 'Loading');
  const { text, step, state } = after(
    { kind: 'step', message: 'Loading' },
    { kind: 'text', text: 'One ' },
    { kind: 'text', text: 'two' },
  );
  assert.deepEqual({ text, step, state }, { text: 'One two', step: undefined, state: 'running' });
});

test('the whole answer counts, not the pieces that streamed', () => {
  const answer = after({ kind: 'text', text: 'Whol' }, { kind: 'done', answer: chatAnswer({ notices: ['n'] }) });
  assert.equal(answer.text, 'Whole.');
  assert.equal(answer.state, 'done');
  assert.deepEqual(answer.notices, ['n']);
  assert.equal(answer.context, CONTEXT);
});

test('an answer that was stopped keeps what it had said', () => {
  const asked = after({ kind: 'done', answer: chatAnswer({ text: 'Half', finishReason: 'cancelled' }) });
  assert.deepEqual([asked.state, asked.text], ['stopped', 'Half']);
  const dropped = after({ kind: 'text', text: 'Half' }, { kind: 'step', message: 's' }, { kind: 'stopped' });
  assert.deepEqual([dropped.state, dropped.text, dropped.step], ['stopped', 'Half', undefined]);
});

test('a failure says why, and keeps what had been said', () => {
  const answer = after({ kind: 'text', text: 'Half' }, { kind: 'failed', message: 'No memory.' });
  assert.deepEqual([answer.state, answer.text, answer.failure], ['failed', 'Half', 'No memory.']);
});

test('the answer about a picture has no context of its own', () => {
  const { context: _, chatId: __, ...rest } = chatAnswer();
  const answer = after({ kind: 'done', answer: { ...rest, width: 1, height: 1, tiles: 1 } });
  assert.equal(answer.context, undefined);
  assert.equal(answer.state, 'done');
});

test('a turn with a known id is replaced where it is', () => {
  const before = conversation(turn('a'), turn('b'));
  const changed = withTurn(before, turn('a', { asked: 'Other' }), 7);
  assert.deepEqual(
    changed.turns.map(({ asked }) => asked),
    ['Other', 'Question b'],
  );
  assert.equal(changed.updated, 7);
  assert.deepEqual(
    withoutTurn(changed, 'a').turns.map(({ id }) => id),
    ['b'],
  );
});

test('only questions that were answered become history', () => {
  const answered = { ...EMPTY_ANSWER, text: 'Yes.' };
  assert.deepEqual(historyOf([turn('a'), turn('b', { answer: answered })]), [
    { role: 'user', text: 'Question b' },
    { role: 'model', text: 'Yes.' },
  ]);
});

test('a title is one short line, and never cuts a character in two', () => {
  assert.equal(titleOf(conversation()), 'Empty chat');
  assert.equal(titleOf(conversation(turn('a', { asked: ' Why\n  so slow? ' }))), 'Why so slow?');
  const long = titleOf(conversation(turn('a', { asked: '🦀'.repeat(100) })));
  assert.equal(long, `${'🦀'.repeat(59)}…`);
});

test('a button is worded as a question', () => {
  const about = { uri: 'file:///a/lib.rs', name: 'lib.rs', lines: { first: 3, last: 5 } };
  assert.equal(wording({ kind: 'explain' }, about), 'Explain lines 3 to 5 of lib.rs');
  assert.equal(
    wording({ kind: 'tests', question: 'with proptest' }, { ...about, lines: { first: 3, last: 3 } }),
    'Write tests for line 3 of lib.rs: with proptest',
  );
  assert.equal(wording({ kind: 'ask', question: ' Why? ' }, about), 'Why?');
  const range = { start: { line: 0, character: 0 }, end: { line: 0, character: 1 } };
  assert.equal(
    wording({ kind: 'fix', diagnostics: [{ message: 'no such name', range }] }, about),
    'Find the bug in “no such name”',
  );
});
