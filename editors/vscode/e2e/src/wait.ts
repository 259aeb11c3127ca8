// Waiting for a condition: the only way in which these tests pass time.

import { setTimeout as pause } from 'node:timers/promises';

/** Long enough for two slow cores under load. No test measures time with it. */
export const PATIENCE_MS = Number(process.env['E2E_PATIENCE_S'] ?? 120) * 1000;

/** How long one try of several may take: for playwright, which gives up what it cannot do in this time. */
export interface Limit {
  readonly timeout: number;
}

/** The first try's. */
export const ONE_TRY: Limit = { timeout: 5_000 };

type Probe<T> = () => T | undefined | false | Promise<T | undefined | false>;

/** Asks `probe` until it gives something other than `undefined` or `false`. */
export async function until<T>(what: string, probe: Probe<T>, patience = PATIENCE_MS): Promise<T> {
  const end = Date.now() + patience;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) {
      return value;
    }
    if (Date.now() > end) {
      throw new Error(`waited ${patience / 1000} s in vain for ${what}`);
    }
    await pause(100);
  }
}

/**
 * Does what can get lost on its way, and does it again until what it is for is there.
 *
 * A key goes where the keyboard is, and that may be about to move; a menu closes again when something arrives late. So
 * `act` is something that may be done twice. It and what it is for are given longer each time: what is only slow is not to be
 * done again, and on the slowest machine one try has the time that it needs.
 */
export async function insist<T>(what: string, act: (limit: Limit) => Promise<unknown>, probe: Probe<T>): Promise<T> {
  const end = Date.now() + PATIENCE_MS;
  let trouble: unknown;
  for (let patience = ONE_TRY.timeout; Date.now() < end; patience = Math.min(2 * patience, PATIENCE_MS)) {
    try {
      // What an earlier try brought about may have come in the meantime.
      const late = trouble !== undefined && (await probe());
      if (late !== undefined && late !== false) {
        return late;
      }
      await act({ timeout: patience });
      return await until(what, probe, patience);
    } catch (error) {
      trouble = error;
      console.log(`        not at once: ${what}`);
    }
  }
  throw new Error(`tried in vain, again and again, for ${what}; at last: ${String(trouble)}`);
}

/** The outcome of `work`, or an error where it takes longer than this. */
export async function within<T>(what: string, patience: number, work: Promise<T>): Promise<T> {
  const over = new AbortController();
  const late = pause(patience, undefined, { signal: over.signal }).then(() => {
    throw new Error(`${what} took longer than ${patience / 1000} s`);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    over.abort();
    late.catch(() => undefined);
  }
}
