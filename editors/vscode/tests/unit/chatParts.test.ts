// The chat's smaller parts: history, edits, pictures, messages, the page, recalled questions, words.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { questionOf } from '../../src/chat/dialogue';
import { atCursor, outdent, replaced } from '../../src/chat/edits';
import { parseToHost } from '../../src/chat/messages';
import { EMPTY_ANSWER, type Conversation, type Turn } from '../../src/chat/model';
import { pageOf } from '../../src/chat/page';
import { isPictureName, LARGEST_PICTURE, pictureType, refusal } from '../../src/chat/pictures';
import { Shelf } from '../../src/chat/shelf';
import { Recall } from '../../webview/recall';
import { contextWords, droppedWords, endAnnouncement, endWords } from '../../webview/words';

function shelf(): Shelf {
  const values = new Map<string, unknown>();
  return new Shelf({
    get: (key) => values.get(key),
    update: async (key, value) => void values.set(key, JSON.parse(JSON.stringify(value))),
  });
}

function conversation(id: string, updated: number, ...questions: string[]): Conversation {
  const turns = questions.map(
    (question, index): Turn => ({
      id: `${id}${index}`,
      asked: question,
      request: { question },
      answer: { ...EMPTY_ANSWER, state: 'done', text: 'Yes.' },
    }),
  );
  return { id, created: 0, updated, turns };
}

test('conversations are listed newest first, reopened and deleted', async () => {
  const kept = shelf();
  await kept.save(conversation('a', 1, 'First?'));
  await kept.save(conversation('b', 2, 'Second?', 'Third?'));
  await kept.save(conversation('a', 3, 'First?', 'Again?'));
  await kept.save(conversation('empty', 4));
  assert.deepEqual(
    kept.entries().map(({ id, title, questions }) => [id, title, questions]),
    [
      ['a', 'First?', 2],
      ['b', 'Second?', 2],
    ],
  );
  assert.equal(kept.newest()?.id, 'a');
  await kept.remove('a');
  assert.equal(kept.find('a'), undefined);
  assert.equal(kept.find('b')?.turns.length, 2);
});

test('the shelf holds fifty conversations; the oldest go', async () => {
  const kept = shelf();
  for (let index = 0; index < 55; index += 1) {
    await kept.save(conversation(`c${index}`, index, 'q'));
  }
  assert.equal(kept.entries().length, 50);
  assert.equal(kept.find('c4'), undefined);
  assert.ok(kept.find('c5'));
});

test('an answer that ran when the window was closed has been stopped', async () => {
  const kept = shelf();
  const { turns, ...rest } = conversation('a', 1, 'q');
  await kept.save({ ...rest, turns: turns.map((turn) => ({ ...turn, answer: { ...EMPTY_ANSWER, text: 'Ye' } })) });
  assert.deepEqual([kept.newest()?.turns[0]?.answer.state, kept.newest()?.turns[0]?.answer.text], ['stopped', 'Ye']);
});

test('questions are recalled once each, oldest first', async () => {
  const kept = shelf();
  await kept.save(conversation('a', 1, 'one', 'two'));
  await kept.save(conversation('b', 2, 'three', 'one'));
  assert.deepEqual(kept.questions(), ['two', 'three', 'one']);
});

test('arrow keys go through earlier questions and come back to the draft', () => {
  const recall = new Recall();
  recall.set(['one', 'two']);
  assert.equal(recall.earlier('draft'), 'two');
  assert.equal(recall.earlier('two'), 'one');
  assert.equal(recall.earlier('one'), undefined);
  assert.equal(recall.later(), 'two');
  assert.equal(recall.later(), 'draft');
  assert.equal(recall.later(), undefined);
  recall.earlier('x');
  recall.reset();
  assert.equal(recall.earlier('y'), 'two');
});

test('code takes the indentation of the line that it is inserted into', () => {
  assert.equal(outdent('    if a:\n        b\n\n    c'), 'if a:\n    b\n\nc');
  assert.equal(outdent('\tif a:\n    b'), '\tif a:\n    b');
  assert.equal(atCursor('  if a:\r\n    b\n\n  c\n', '\t\tx = '), 'if a:\n\t\t  b\n\n\t\tc');
  assert.equal(atCursor('x\n', ''), 'x');
  assert.equal(replaced('abcdef', 2, 4, 'XYZ'), 'abXYZef');
});

test('pictures are told by their bytes, not by their names', () => {
  const bytes = (...head: number[]): Uint8Array => Uint8Array.from([...head, ...Array.from({ length: 12 }, () => 0)]);
  assert.equal(pictureType(bytes(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)), 'image/png');
  assert.equal(pictureType(bytes(0xff, 0xd8, 0xff, 0xe0)), 'image/jpeg');
  assert.equal(pictureType(bytes(0x52, 0x49, 0x46, 0x46, 1, 2, 3, 4, 0x57, 0x45, 0x42, 0x50)), 'image/webp');
  assert.equal(pictureType(bytes(0x47, 0x49, 0x46, 0x38)), undefined);
  assert.equal(pictureType(new Uint8Array()), undefined);
  assert.match(refusal('a.txt', bytes(1, 2)) ?? '', /^a\.txt is no PNG, JPEG or WebP/);
  assert.match(refusal('a.png', new Uint8Array(LARGEST_PICTURE + 1)) ?? '', /has 21 MB.*20 MB at most/);
  assert.equal(refusal('a.png', bytes(0xff, 0xd8, 0xff)), undefined);
  assert.ok(isPictureName('/a/B.PNG') && !isPictureName('/a/png'));
});

test('a message from the view has all its fields, or is none', () => {
  assert.deepEqual(parseToHost({ type: 'stop' }), { type: 'stop' });
  assert.ok(parseToHost({ type: 'ask', question: 'q', kind: 'ask' }));
  assert.ok(parseToHost({ type: 'ask', question: '', kind: 'ask', picture: { id: 'i', name: 'n' } }));
  assert.ok(parseToHost({ type: 'attach', id: 'i', name: 'n', bytes: new Uint8Array(1) }));
  const wrong = [
    undefined,
    null,
    'stop',
    {},
    { type: 'nothing' },
    { type: 'toString' },
    { type: '__proto__' },
    { type: 'ask', question: 'q', kind: 'destroy' },
    { type: 'ask', kind: 'ask' },
    { type: 'ask', question: 'q', kind: 'ask', picture: 'p' },
    { type: 'ask', question: 'q', kind: 'ask', picture: { id: 'i' } },
    { type: 'attach', id: 'i', name: 'n', bytes: 'AAAA' },
  ];
  for (const message of wrong) {
    assert.equal(parseToHost(message), undefined);
  }
});

test('the page runs one script and loads nothing from elsewhere', () => {
  const page = pageOf({ script: 'https://w/main.js', style: 'https://w/style.css', source: 'https://w', nonce: 'abc' });
  const policy = /content="(default-src[^"]*)"/.exec(page)?.[1] ?? '';
  assert.ok(policy.startsWith("default-src 'none'; script-src 'nonce-abc'; style-src https://w; img-src data:"));
  assert.doesNotMatch(policy, /unsafe|\*|connect-src/);
  assert.equal(page.match(/<script/g)?.length, 1);
  assert.doesNotMatch(page, /<style| style=| on\w+=/);
});

test('a dialogue of VS Code becomes a question and its history, taking turns', () => {
  const picture = new Uint8Array([1]);
  const asked = questionOf([
    { role: 'user', text: 'Rules.' },
    { role: 'user', text: 'Hello?' },
    { role: 'model', text: 'Yes.' },
    { role: 'user', text: 'What is this?', pictures: [picture] },
    { role: 'model', text: 'Let me' },
  ]);
  assert.deepEqual(asked.history, [
    { role: 'user', text: 'Rules.\n\nHello?' },
    { role: 'model', text: 'Yes.' },
  ]);
  assert.equal(asked.question, 'What is this?');
  assert.equal(asked.picture, picture);
  assert.deepEqual(questionOf([]), { question: '', history: [] });
});

test('what went in and what did not is said in words', () => {
  const dropped = { turns: 0, lines_above: 0, lines_below: 0 };
  const whole = { path: '/a/b/lib.rs', lines: { first: 1, last: 80, of: 80 }, turns: 0, promptTokens: 1234, dropped };
  assert.equal(contextWords(whole), 'lib.rs, all 80 lines, 1,234 tokens');
  const part = { ...whole, lines: { first: 5, last: 80, of: 200 }, selection: { first: 7, last: 7 }, turns: 2 };
  assert.equal(contextWords(part), 'lib.rs, lines 5 to 80 of 200, selected line 7, 2 earlier questions, 1,234 tokens');
  assert.equal(contextWords({ turns: 0, promptTokens: 1, dropped }), 'No file, 1 token');
  assert.equal(droppedWords(whole), '');
  assert.equal(
    droppedWords({ ...whole, dropped: { turns: 1, lines_above: 4, lines_below: 120 } }),
    'Left out for want of room: 4 lines above, 120 lines below, 1 earlier question',
  );
});

test('how an answer ended is said on the page and aloud', () => {
  const answer = { ...EMPTY_ANSWER, state: 'done', model: 'gemma', finishReason: 'stop' } as const;
  assert.equal(endWords(answer), 'Answered by gemma');
  assert.equal(endWords({ ...answer, state: 'stopped' }), 'Answered by gemma, stopped');
  assert.equal(endWords({ ...EMPTY_ANSWER, state: 'stopped' }), 'Stopped');
  assert.equal(endWords({ ...answer, finishReason: 'length' }), 'Answered by gemma, as long as an answer may get');
  const turn = { id: 't', asked: 'q', request: {}, answer };
  assert.equal(endAnnouncement(turn, 'Yes.'), 'Answer: Yes.');
  assert.equal(
    endAnnouncement({ ...turn, answer: { ...answer, state: 'failed', failure: 'No memory.' } }, ''),
    'No answer. No memory.',
  );
});
