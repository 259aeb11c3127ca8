// Runs tests one after the other in the same VS Code, prints how each went, and keeps what tells why one failed.
//
// A test that failed is tried once more, in a VS Code that has just been started: a busy machine loses things that no test
// is about. That it was is said at the end, with the reason, so that it is noticed; one that fails again has failed.

import { join } from 'node:path';
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { PATIENCE_MS, within } from './wait.ts';
import { World } from './world.ts';

export interface Test {
  name: string;
  run(world: World): Promise<void>;
}

/** Tests of one subject, in the order in which they run. */
export function tests(cases: Record<string, (world: World) => Promise<void>>): Test[] {
  return Object.entries(cases).map(([name, run]) => ({ name, run }));
}

/** Every wait in a test has an end, but one test has many. */
const LONGEST_MS = 5 * PATIENCE_MS;

interface Failure {
  /** Why, and where more is kept. */
  readonly report: string;
}

export class Runner {
  readonly #kept: string;
  #world: World | undefined;
  #abandoned = false;

  /** Screenshots and logs of what failed are kept in a folder of this path. */
  constructor(kept: string) {
    this.#kept = kept;
  }

  /** Runs the tests and says how they went. The answer is how many failed. */
  async run(all: readonly Test[]): Promise<number> {
    let failed = 0;
    const again: string[] = [];
    for (const test of all) {
      const first = await this.#try(test, 'first');
      if (first === undefined) {
        continue;
      }
      console.log('        once more, in a new VS Code:');
      if ((await this.#try(test, 'second')) === undefined) {
        again.push(`${test.name}\n${indented(first.report)}`);
      } else {
        failed++;
      }
    }
    if (again.length > 0) {
      console.log(`\n${again.length} PASSED AT THE SECOND TRY ONLY. Either the test or the extension is not firm enough:\n`);
      again.forEach((report) => console.log(report));
    }
    console.log(`\n${all.length - failed} passed, ${failed} failed`);
    return failed;
  }

  /** Ends VS Code in the middle of a test, and begins no other. */
  async abandon(): Promise<void> {
    this.#abandoned = true;
    await this.end();
  }

  /** Ends VS Code. */
  async end(): Promise<void> {
    const world = this.#world;
    this.#world = undefined;
    await world?.end().catch((reason: unknown) => console.log(indented(`not ended as it should: ${String(reason)}`)));
    if (world !== undefined) {
      rmSync(world.sandbox.root, { recursive: true, force: true, maxRetries: 3 });
    }
  }

  async #try(test: Test, which: 'first' | 'second'): Promise<Failure | undefined> {
    const start = Date.now();
    const seconds = (): string => `${((Date.now() - start) / 1000).toFixed(1)} s`;
    try {
      this.#world ??= await World.create();
      await within('the test', LONGEST_MS, test.run(this.#world));
      console.log(`ok      ${test.name} (${seconds()})`);
    } catch (error) {
      if (this.#abandoned) {
        // Whoever abandoned the tests ends this program.
        return new Promise(() => undefined);
      }
      console.log(`FAILED  ${test.name} (${seconds()})`);
      const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
      const folder = join(this.#kept, `${test.name.replace(/[^a-z0-9]+/gi, '-')}-${which}-try`);
      const report = `${reason}\n${await this.#keep(folder)}`;
      console.log(indented(report));
      // Whatever state it is in, no other test is to begin in it.
      await this.end();
      return { report };
    }
    await within('tidying up', LONGEST_MS, this.#world.tidy()).catch(async (reason: unknown) => {
      console.log(indented(`not tidied up, so the next test begins in a new VS Code: ${String(reason)}`));
      await this.end();
    });
    return undefined;
  }

  /** Keeps what can be kept, and says where. */
  async #keep(folder: string): Promise<string> {
    const world = this.#world;
    if (world === undefined) {
      return 'VS Code could not be started, so there are no screenshots and logs';
    }
    const lost: string[] = [];
    mkdirSync(folder, { recursive: true });
    for (const [index, window] of world.windows.entries()) {
      const path = join(folder, `window-${index + 1}.png`);
      await window.page.screenshot({ path, timeout: 10_000 }).catch((reason: unknown) => lost.push(String(reason)));
    }
    for (const part of ['data/logs', 'servers', 'code-server.log']) {
      try {
        cpSync(join(world.sandbox.root, part), join(folder, part), {
          recursive: true,
          filter: (path) => !path.endsWith('.sock'),
        });
      } catch (reason) {
        lost.push(String(reason));
      }
    }
    return [`screenshots and logs: ${folder}`, ...lost.map((reason) => `not kept: ${reason}`)].join('\n');
  }
}

function indented(text: string): string {
  return text.replace(/^/gm, '        ');
}
