// Cold starts, one after the other: a new profile, a new VS Code, a new browser, and no tap between editor and server.

import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { openBrowser } from './src/browser.ts';
import { CodeServer } from './src/codeServer.ts';
import { places, Sandbox } from './src/places.ts';
import { LINE } from './src/texts.ts';
import { insist, until } from './src/wait.ts';
import { Window } from './src/window.ts';

/** Milliseconds since the browser was sent to VS Code's page, but for the last. */
interface Run {
  editor: number;
  server: number;
  ready: number;
  grey: number;
  /** VS Code's own number. */
  activation: number;
}

const HEADINGS: Record<keyof Run, string> = {
  editor: 'file open, ms',
  server: 'server runs, ms',
  ready: 'model ready, ms',
  grey: 'grey text, ms',
  activation: 'activation, ms',
};

async function coldStart(): Promise<Run> {
  const sandbox = new Sandbox();
  const vscode = await CodeServer.start(sandbox, {
    'gemma.server.path': places.binary(),
    'gemma.model': places.model(),
  });
  const context = await openBrowser();
  try {
    const folder = sandbox.folder('project');
    writeFileSync(join(folder, 'cold.py'), LINE.slice(0, -1));
    const page = await context.newPage();
    const start = performance.now();
    const passed = (): number => Math.round(performance.now() - start);
    let server = 0;
    const running = until('the server to run', () => serverOf(folder)).then(() => (server = passed()));
    const window = await Window.open(page, vscode.url(folder), folder);
    await window.show('cold.py');
    const editor = passed();
    let ready = 0;
    const loaded = window.ready().then(() => (ready = passed()));
    let again = false;
    await insist(
      'grey text',
      async () => {
        // A VS Code that has just started drops the question of a key now and then.
        if (again) {
          await window.edit('Backspace');
        }
        again = true;
        await window.type(LINE.slice(-1));
      },
      () => window.ghost(),
    );
    const grey = passed();
    await Promise.all([running, loaded]);
    return { editor, server, ready, grey, activation: await activation(window) };
  } finally {
    await context.browser()?.close();
    await vscode.stop();
    rmSync(sandbox.root, { recursive: true, force: true });
  }
}

/** Whether a server runs in this folder. */
function serverOf(folder: string): boolean {
  const pids = execFileSync('ps', ['-eo', 'pid=,comm='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, name]) => name === 'gemma-ls')
    .map(([pid]) => pid);
  return pids.some((pid) => {
    try {
      return execFileSync('readlink', [`/proc/${pid}/cwd`], { encoding: 'utf8' }).trim() === folder;
    } catch {
      return false;
    }
  });
}

/** How long VS Code says that the extension took to activate. */
async function activation(window: Window): Promise<number> {
  // Room for the whole list: rows that cannot be seen do not exist.
  await window.page.setViewportSize({ width: 1200, height: 2400 });
  await window.command('Developer: Show Running Extensions');
  const entry = window.page.locator('.monaco-list[aria-label="Runtime Extensions"] .monaco-list-row[aria-label="gemma-ls"]');
  return until('the time of activation', async () => {
    const milliseconds = /Activation: (\d+)\s*ms/.exec(await entry.innerText())?.[1];
    return milliseconds !== undefined && Number(milliseconds);
  });
}

function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN;
}

const runs: Run[] = [];
const keys = Object.keys(HEADINGS) as (keyof Run)[];
const row = (cells: (string | number)[]): string => `| ${cells.join(' | ')} |`;

console.log(`${cpus().length} processors, ${cpus()[0]?.model ?? 'unknown'}; ${places.model().split('/').at(-1)}`);
console.log(row(['run', 'load before', ...keys.map((key) => HEADINGS[key])]));
console.log(row(['---', ...keys.map(() => '---'), '---']));
for (let run = 1; run <= Number(process.argv[2] ?? 5); run++) {
  const load = (loadavg()[0] ?? 0).toFixed(1);
  const result = await coldStart();
  runs.push(result);
  console.log(row([run, load, ...keys.map((key) => result[key])]));
}
console.log(row(['median', '', ...keys.map((key) => median(runs.map((run) => run[key])))]));
