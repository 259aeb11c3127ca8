// Waiting for a condition: the only way in which these tests pass time.

import { setTimeout as pause } from 'node:timers/promises';

/** Long enough for two slow cores under load. No test measures time with it. */
export const PATIENCE_MS = Number(process.env['E2E_PATIENCE_S'] ?? 120) * 1000;

/** Asks `probe` until it gives something other than `undefined` or `false`. */
export async function until<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  patience = PATIENCE_MS,
): Promise<T> {
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
