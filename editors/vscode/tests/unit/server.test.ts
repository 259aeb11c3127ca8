// The server's version, its crashes, and its log.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { Backoff } from '../../src/server/backoff';
import { parseLogLine } from '../../src/server/logline';
import { checkVersion, judge, OLDEST } from '../../src/server/version';

describe('the version', () => {
  it('is taken from what gemma-ls prints', () => {
    assert.deepEqual(judge('/x', 'gemma-ls 0.1.0\n'), { version: '0.1.0' });
    assert.deepEqual(judge('/x', 'gemma-ls 12.0.3-rc.1 (abc)\n'), { version: '12.0.3-rc.1' });
    assert.deepEqual(judge('/x', `gemma-ls ${OLDEST}`), { version: OLDEST });
  });

  it('is refused where it is too old, or of something else', () => {
    const old = judge('/x', 'gemma-ls 0.0.9\n');
    assert.ok('problem' in old);
    assert.match(old.problem, /0\.0\.9.*needs 0\.1\.0/);
    const other = judge('/x', 'llama-server 1.2.3\n');
    assert.ok('problem' in other);
    assert.match(other.problem, /not gemma-ls.*llama-server/);
  });

  it('is asked of the program itself', async () => {
    const node = await checkVersion(process.execPath);
    assert.ok('problem' in node);
    assert.match(node.problem, /is not gemma-ls: .*"v\d+/);
    const missing = await checkVersion('/nowhere/gemma-ls');
    assert.ok('problem' in missing);
    assert.match(missing.problem, /cannot be run/);
  });
});

describe('a server that crashes', () => {
  it('is started again later each time, and at last no more', () => {
    const backoff = new Backoff();
    const delays = Array.from({ length: 6 }, (_, second) => backoff.crashed(second * 1000));
    assert.deepEqual(delays, [1000, 2000, 4000, 8000, 16000, 'give up']);
  });

  it('starts from the beginning after a quiet time', () => {
    const backoff = new Backoff();
    backoff.crashed(0);
    assert.equal(backoff.crashed(60_000), 2000);
    assert.equal(backoff.crashed(60_000 + 180_000), 1000);
  });

  it('starts from the beginning when the user starts it', () => {
    const backoff = new Backoff();
    backoff.crashed(0);
    backoff.reset();
    assert.equal(backoff.crashed(1), 1000);
  });
});

describe('a line of the log', () => {
  const at = '2026-11-22T04:50:00.123456Z ';

  it('keeps its level and loses its time', () => {
    assert.deepEqual(parseLogLine(`${at} INFO gemma_ls::lsp: ready`), { level: 'info', text: 'gemma_ls::lsp: ready' });
    assert.deepEqual(parseLogLine(`${at} WARN gemma_ls: odd`), { level: 'warn', text: 'gemma_ls: odd' });
    assert.deepEqual(parseLogLine(`${at}ERROR gemma_ls: bad`), { level: 'error', text: 'gemma_ls: bad' });
  });

  it('is shown although it is finer than the editor shows', () => {
    assert.deepEqual(parseLogLine(`${at}DEBUG gemma_ls: x`), { level: 'info', text: 'debug: gemma_ls: x' });
  });

  it('may be anything', () => {
    assert.deepEqual(parseLogLine('thread panicked at x'), { level: 'info', text: 'thread panicked at x' });
    assert.deepEqual(parseLogLine(''), { level: 'info', text: '' });
  });
});
