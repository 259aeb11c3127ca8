// Where the cursor rests: told once, and not of places to which typing brought it.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';

import { type Place, Rest, REST_MS } from '../../src/completions/rest';

const uri = 'file:///a.py';
const here: Place = { uri, version: 1, line: 4, character: 2 };
const there: Place = { ...here, line: 9 };
const elsewhere: Place = { ...here, uri: 'file:///b.py' };

let told: Place[];
let rest: Rest;

beforeEach(() => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  told = [];
  rest = new Rest((place) => told.push(place));
});

afterEach(() => {
  rest.stop();
  mock.timers.reset();
});

/** Lets time pass, and checks what was told in all. */
function after(milliseconds: number, ...places: Place[]): void {
  mock.timers.tick(milliseconds);
  assert.deepEqual(told, places);
}

/** What the editor tells when a key puts a character behind the place. */
function type(place: Place): Place {
  const next = { ...place, version: place.version + 1, character: place.character + 1 };
  rest.change(place.uri);
  rest.move(next);
  return next;
}

describe('the cursor', () => {
  it('is told of when it has rested, and once', () => {
    rest.move(here);
    after(REST_MS - 1);
    after(1, here);
    after(10 * REST_MS, here);
  });

  it('is told of where it comes to rest, not of the places on its way', () => {
    for (let line = 0; line < 9; line++) {
      rest.move({ ...here, line });
      mock.timers.tick(REST_MS - 1);
    }
    rest.move(there);
    after(REST_MS, there);
  });

  it('that typing moves is not told of', () => {
    let place = here;
    for (let key = 0; key < 20; key++) {
      place = type(place);
      mock.timers.tick(80);
    }
    after(10 * REST_MS);
  });

  it('is not told of when typing begins before it has rested', () => {
    rest.move(here);
    mock.timers.tick(REST_MS - 1);
    type(here);
    after(10 * REST_MS);
  });

  it('that typing moves is not told of where the move is told before the change', () => {
    rest.move({ ...here, version: 2 });
    rest.change(uri);
    after(10 * REST_MS);
  });

  it('is told of where it goes right after typing', () => {
    type(here);
    rest.move(there);
    after(REST_MS, there);
  });

  it('is told of where it goes some time after what stands behind it was deleted', () => {
    rest.change(uri);
    mock.timers.tick(1000);
    rest.move(there);
    after(REST_MS, there);
  });

  it('is told of where the mouse puts it, also right after a key', () => {
    type(here);
    rest.arrive(there);
    after(REST_MS, there);
  });

  it('is told of in an editor that comes to the front, and where it goes back to', () => {
    rest.move(here);
    after(REST_MS, here);
    rest.arrive(elsewhere);
    after(REST_MS, here, elsewhere);
    rest.arrive(here);
    after(REST_MS, here, elsewhere, here);
  });

  it('that comes back before it has rested elsewhere is not told of again', () => {
    rest.move(here);
    after(REST_MS, here);
    rest.move(there);
    mock.timers.tick(REST_MS - 1);
    rest.move(here);
    after(10 * REST_MS, here);
  });

  it('at the same place in a text that has changed is told of again', () => {
    rest.move(here);
    after(REST_MS, here);
    rest.change(uri);
    mock.timers.tick(REST_MS);
    const changed = { ...here, version: 2 };
    rest.arrive(changed);
    after(REST_MS, here, changed);
  });

  it('rests although another document changes', () => {
    rest.move(here);
    rest.change(elsewhere.uri);
    after(REST_MS, here);
  });

  it('is not told of where nothing is in front any more', () => {
    rest.move(here);
    rest.stop();
    after(10 * REST_MS);
  });

  it('is told of once more to somebody else', () => {
    rest.move(here);
    after(REST_MS, here);
    rest.forget();
    rest.arrive(here);
    after(REST_MS, here, here);
  });
});
