// What of a suggestion was taken, seen from the changes of the document.

import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';

import { Tracker } from '../../src/completions/tracker';

const uri = 'file:///a.py';
const text = 'return fibonacci(n - 1)\n    + 2';

let tracker: Tracker;

beforeEach(() => {
  tracker = new Tracker();
  tracker.show({ id: 7, uri, offset: 10, text });
});

function insert(offset: number, inserted: string, length = 0) {
  return tracker.change(uri, [{ rangeOffset: offset, rangeLength: length, text: inserted }]);
}

describe('a suggestion', () => {
  it('is new once', () => {
    assert.equal(tracker.show({ id: 7, uri, offset: 11, text: text.slice(1) }), false);
    assert.equal(tracker.show(undefined), false);
    assert.equal(tracker.show({ id: 8, uri, offset: 11, text }), true);
  });

  it('is taken word by word', () => {
    assert.deepEqual(insert(10, 'return'), { id: 7, kind: 'word', text: 'return' });
    assert.equal(insert(16, ' '), undefined);
    assert.deepEqual(insert(17, 'fibonacci'), { id: 7, kind: 'word', text: 'fibonacci' });
  });

  it('is taken by the line', () => {
    const line = 'return fibonacci(n - 1)\n';
    assert.deepEqual(insert(10, line), { id: 7, kind: 'line', text: line });
  });

  it('is taken by the line in a document with other line ends', () => {
    const line = 'return fibonacci(n - 1)\r\n';
    assert.deepEqual(insert(10, line), { id: 7, kind: 'line', text: line });
    assert.deepEqual(insert(10 + line.length, '    +'), { id: 7, kind: 'word', text: '    +' });
  });

  it('that is typed is not taken, and can be taken after that', () => {
    assert.equal(insert(10, 'r'), undefined);
    assert.equal(insert(11, 'e'), undefined);
    assert.deepEqual(insert(12, 'turn'), { id: 7, kind: 'word', text: 'turn' });
  });

  it('that is typed with what the editor adds is not taken', () => {
    tracker.show({ id: 8, uri, offset: 0, text: '()\n    pass' });
    assert.equal(insert(0, '()'), undefined);
    assert.equal(insert(2, '\n    '), undefined);
    assert.deepEqual(insert(7, 'pass'.slice(0, 3)), { id: 8, kind: 'word', text: 'pas' });
  });

  it('taken as a whole is left to its command', () => {
    assert.equal(insert(10, text), undefined);
    assert.equal(insert(10 + text.length, 'return'), undefined);
  });

  for (const [what, change] of [
    ['something else is written', () => insert(10, 'yield')],
    ['it is written elsewhere', () => insert(11, 'return')],
    ['something is replaced', () => insert(10, 'return', 2)],
    ['something is deleted', () => insert(9, '', 1)],
    ['several places change at once', () =>
      tracker.change(uri, [
        { rangeOffset: 10, rangeLength: 0, text: 'return' },
        { rangeOffset: 0, rangeLength: 0, text: 'return' },
      ])],
  ] as const) {
    it(`is gone when ${what}`, () => {
      assert.equal(change(), undefined);
      assert.equal(insert(10, 'return'), undefined);
    });
  }

  it('is not touched by another document, nor by a change of nothing', () => {
    assert.equal(tracker.change('file:///b.py', [{ rangeOffset: 10, rangeLength: 0, text: 'return' }]), undefined);
    assert.equal(tracker.change(uri, []), undefined);
    assert.deepEqual(insert(10, 'return'), { id: 7, kind: 'word', text: 'return' });
  });
});
