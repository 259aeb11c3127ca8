// Runs tests one after the other in the same VS Code, prints how each went, and keeps what tells why one failed.

import { join } from 'node:path';
import { cpSync, mkdirSync } from 'node:fs';
import type { World } from './world.ts';

export interface Test {
  name: string;
  run(world: World): Promise<void>;
}

/** Tests of one subject, in the order in which they run. */
export function tests(cases: Record<string, (world: World) => Promise<void>>): Test[] {
  return Object.entries(cases).map(([name, run]) => ({ name, run }));
}

export async function runAll(world: World, all: readonly Test[], kept: string): Promise<{ passed: number; failed: number }> {
  const count = { passed: 0, failed: 0 };
  for (const test of all) {
    const start = Date.now();
    const seconds = (): string => `${((Date.now() - start) / 1000).toFixed(1)} s`;
    try {
      await test.run(world);
      count.passed++;
      console.log(`ok      ${test.name} (${seconds()})`);
    } catch (error) {
      count.failed++;
      console.log(`FAILED  ${test.name} (${seconds()})`);
      console.log(indented(error instanceof Error ? (error.stack ?? error.message) : String(error)));
      const folder = join(kept, test.name.replace(/[^a-z0-9]+/gi, '-'));
      await keep(world, folder).catch((reason: unknown) => console.log(indented(`nothing could be kept: ${String(reason)}`)));
      console.log(indented(`screenshots and logs: ${folder}`));
    }
    await world.tidy().catch((reason: unknown) => console.log(indented(`not tidied up: ${String(reason)}`)));
  }
  return count;
}

async function keep(world: World, folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  for (const [index, window] of world.windows.entries()) {
    await window.page.screenshot({ path: join(folder, `window-${index + 1}.png`), timeout: 10_000 });
  }
  for (const part of ['data/logs', 'servers', 'code-server.log']) {
    cpSync(join(world.sandbox.root, part), join(folder, part), {
      recursive: true,
      filter: (path) => !path.endsWith('.sock'),
    });
  }
}

function indented(text: string): string {
  return text.replace(/^/gm, '        ');
}
