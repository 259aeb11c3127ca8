// When a server that crashed is started again, and when no more.

/** Crashes that are longer ago are forgotten. */
const WINDOW_MS = 3 * 60_000;
/** This many crashes within the window are taken for a lasting fault. */
const TOO_MANY = 6;

export class Backoff {
  private crashes: number[] = [];

  /** Notes a crash. The answer is how long to wait in milliseconds, or that it is not worth another try. */
  crashed(now: number): number | 'give up' {
    this.crashes = this.crashes.filter((earlier) => now - earlier < WINDOW_MS);
    this.crashes.push(now);
    const count = this.crashes.length;
    return count >= TOO_MANY ? 'give up' : 1000 * 2 ** (count - 1);
  }

  /** The user started it: nothing counts from before. */
  reset(): void {
    this.crashes = [];
  }
}
