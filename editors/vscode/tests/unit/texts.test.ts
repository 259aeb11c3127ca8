// What the user reads: the status bar item, the list of models, the statistics.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { detailOf, size } from '../../src/commands/modelText';
import { detail, headline } from '../../src/commands/statisticsText';
import type { Model, Statistics } from '../../src/protocol';
import { costLine, look } from '../../src/status/look';

describe('the status bar item', () => {
  const model = { model: 'gemma-3-270m', device: 'cpu (amx, 2 threads)', message: 'Ready' };

  it('counts while the model is loaded', () => {
    const { text } = look({ state: 'loading', percent: 40.7, message: 'Loading gemma-3-270m 40%' }, undefined);
    assert.equal(text, '$(loading~spin) Gemma 40%');
  });

  it('names model and device', () => {
    const { text, tooltip, colour } = look({ state: 'ready', ...model }, {});
    assert.equal(text, '$(sparkle) gemma-3-270m on cpu');
    assert.equal(tooltip, 'Ready: gemma-3-270m on cpu (amx, 2 threads).');
    assert.equal(colour, undefined);
  });

  it('says why nothing is completed here', () => {
    const off = { off: 'languagesOff', sentence: 'Completion is off for markdown.' } as const;
    const { text, tooltip } = look({ state: 'working', ...model }, off);
    assert.equal(text, '$(circle-slash) gemma-3-270m');
    assert.match(tooltip, /^Completion is off for markdown\. The model is ready/);
  });

  it('says what failed', () => {
    const { tooltip, colour } = look({ state: 'failed', message: 'No model', error: 'There is no such model.' }, {});
    assert.equal(tooltip, 'There is no such model.');
    assert.equal(colour, 'error');
  });

  it('tells of a server that is not there', () => {
    const message = 'The program gemma-ls was not found.';
    assert.deepEqual(look({ state: 'missing', message }, undefined), {
      text: '$(warning) Gemma: no server',
      tooltip: message,
      colour: 'warning',
    });
  });
});

describe('the cost of the last completion', () => {
  it('is told', () => {
    const cost = { reason: 'shown', tokensAsked: 812, tokensComputed: 1, firstTokenMs: 17.6 };
    assert.equal(costLine(cost), 'Last completion: 1 of 812 tokens computed, 18 ms to the first.');
    assert.equal(costLine({ ...cost, firstTokenMs: null }), 'Last completion: 1 of 812 tokens computed.');
    assert.equal(costLine({ ...cost, tokensComputed: 0 }), 'Last completion: 0 of 812 tokens computed, 18 ms to the first.');
  });

  it('is little where an earlier answer was used', () => {
    const cost = { reason: 'shown', tokensAsked: null, tokensComputed: null, firstTokenMs: 0.2 };
    assert.equal(costLine(cost), 'Last completion: nothing had to be computed, less than 1 ms.');
  });

  it('is not told where it is not known or nothing was asked', () => {
    assert.equal(costLine({}), undefined);
    assert.equal(costLine({ reason: 'disabled', tokensAsked: null, tokensComputed: null, firstTokenMs: 0.1 }), undefined);
  });
});

describe('the list of models', () => {
  const model: Model = { name: 'm', bytes: 1, installed: false, infill: true, instructed: false, pictures: true };

  it('says what each is good for and where it is', () => {
    assert.equal(detailOf(model), 'made for code, reads pictures');
    assert.match(detailOf({ ...model, page: 'https://example.org' }), /licence has to be accepted/);
    assert.equal(detailOf({ ...model, infill: false, pictures: false, installed: true, path: '/m' }), '/m');
  });

  it('tells sizes', () => {
    assert.equal(size(253e6), '253 MB');
    assert.equal(size(5.02e9), '5.0 GB');
  });
});

describe('the statistics', () => {
  const statistics: Statistics = {
    since: '2026-11-22',
    shown: 200,
    accepted: 50,
    words: 5,
    lines: 6,
    wholes: 42,
    characters: 12345,
    timeSavedMs: 3_720_000,
    languages: Object.fromEntries('abcdefg'.split('').map((id, index) => [id, { shown: 1, accepted: 1, characters: index }])),
  };

  it('are sentences', () => {
    assert.equal(headline(statistics), 'Gemma has written 12,345 characters for you since 2026-11-22.');
    const text = detail(statistics);
    assert.match(text, /shown: 200\. Taken, at least in part: 50 \(25%\)\./);
    assert.match(text, /1 h 2 min\./);
    assert.match(text, /: g 6, f 5, e 4, d 3, c 2, others 1\./);
  });

  it('of nothing divide by nothing', () => {
    const text = detail({ ...statistics, shown: 0, accepted: 0, timeSavedMs: 900, languages: {} });
    assert.match(text, /Taken, at least in part: 0\./);
    assert.match(text, /1 s\./);
    assert.doesNotMatch(text, /by language/);
  });
});
