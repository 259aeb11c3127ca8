// Starts and stops VS Code's server, in a profile of its own with the extension installed.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createWriteStream, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { keybindings } from './keys.ts';
import { codeServer, places, type Sandbox } from './places.ts';
import { until } from './wait.ts';

export type Settings = Record<string, unknown>;

/** What VS Code would do by itself and a test does not want, such as help from elsewhere on the network. */
const QUIET: Settings = {
  'workbench.startupEditor': 'none',
  'workbench.tips.enabled': false,
  'workbench.welcomePage.walkthroughs.openOnInstall': false,
  'telemetry.telemetryLevel': 'off',
  'extensions.autoUpdate': false,
  'extensions.autoCheckUpdates': false,
  'security.workspace.trust.enabled': false,
  'git.enabled': false,
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
  'editor.autoClosingBrackets': 'never',
  'editor.autoClosingQuotes': 'never',
  'files.autoSave': 'off',
  'window.confirmBeforeClose': 'never',
};

/** Settings that are about a machine. VS Code in a browser reads them where its server runs, and nowhere else. */
const OF_MACHINE = /^gemma\.(server\.|model$|chatModel$|device$|threads$|memoryBudgetMb$)/;

export class CodeServer {
  readonly port: number;
  readonly logs: string;
  readonly #data: string;
  readonly #process: ChildProcess;

  private constructor(port: number, data: string, process: ChildProcess) {
    this.port = port;
    this.#data = data;
    this.logs = join(data, 'logs');
    this.#process = process;
  }

  static async start(sandbox: Sandbox, settings: Settings): Promise<CodeServer> {
    const home = sandbox.folder('home');
    const data = sandbox.folder('data');
    writeFileSync(join(sandbox.folder('data/User'), 'keybindings.json'), JSON.stringify(keybindings()));
    sandbox.folder('data/Machine');
    writeSettings(data, settings);

    const profile = ['--user-data-dir', data, '--extensions-dir', sandbox.folder('extensions')];
    // A home of its own: neither the user's configuration nor the user's statistics are touched.
    const environment = { PATH: process.env['PATH'], LANG: 'C.UTF-8', HOME: home };
    await promisify(execFile)(process.execPath, [codeServer, ...profile, '--install-extension', places.extension()], {
      env: environment,
    });

    const port = await freePort();
    const options = ['--auth', 'none', '--bind-addr', `127.0.0.1:${port}`, '--disable-telemetry'];
    const quiet = ['--disable-update-check', '--disable-workspace-trust', '--disable-getting-started-override'];
    const child = spawn(process.execPath, [codeServer, ...profile, ...options, ...quiet], {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const log = createWriteStream(join(sandbox.root, 'code-server.log'));
    child.stdout.pipe(log);
    child.stderr.pipe(log);

    const server = new CodeServer(port, data, child);
    await until('code-server to answer', async () => {
      if (child.exitCode !== null) {
        throw new Error(`code-server ended with status ${child.exitCode}: see ${sandbox.root}/code-server.log`);
      }
      const answer = await fetch(`http://127.0.0.1:${port}/healthz`).catch(() => undefined);
      return answer?.ok;
    });
    return server;
  }

  url(folder: string): string {
    return `http://127.0.0.1:${this.port}/?folder=${encodeURIComponent(folder)}`;
  }

  /** Changes settings in the file, as someone does who edits it. */
  configure(settings: Settings): void {
    writeSettings(this.#data, settings);
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode === null) {
      const ended = new Promise((resolve) => this.#process.once('exit', resolve));
      this.#process.kill('SIGTERM');
      await ended;
    }
  }
}

function writeSettings(data: string, settings: Settings): void {
  const machine: Settings = {};
  const user: Settings = { ...QUIET };
  for (const [key, value] of Object.entries(settings)) {
    (OF_MACHINE.test(key) ? machine : user)[key] = value;
  }
  writeFileSync(join(data, 'Machine/settings.json'), JSON.stringify(machine, undefined, 2));
  writeFileSync(join(data, 'User/settings.json'), JSON.stringify(user, undefined, 2));
}

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const listener = createServer();
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const address = listener.address();
  await new Promise((resolve) => listener.close(resolve));
  if (address === null || typeof address === 'string') {
    throw new Error('no port is free');
  }
  return address.port;
}
