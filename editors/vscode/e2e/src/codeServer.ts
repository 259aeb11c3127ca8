// Starts and stops VS Code's server, in a profile of its own with the extension installed.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { keybindings } from './keys.ts';
import { codeServer, places, type Sandbox } from './places.ts';
import { PATIENCE_MS, until, within } from './wait.ts';

export type Settings = Record<string, unknown>;

/** What VS Code would do by itself and a test does not want, such as help from elsewhere on the network. */
const QUIET: Settings = {
  'workbench.startupEditor': 'none',
  'workbench.tips.enabled': false,
  'workbench.editor.useModal': 'off',
  'workbench.welcomePage.walkthroughs.openOnInstall': false,
  'telemetry.telemetryLevel': 'off',
  'extensions.autoUpdate': 'off',
  'extensions.autoCheckUpdates': false,
  'security.workspace.trust.enabled': false,
  'git.enabled': false,
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
  'editor.autoClosingBrackets': 'never',
  'editor.autoClosingQuotes': 'never',
  // Words of the file in a menu would be taken by Tab in place of the grey text.
  'editor.wordBasedSuggestions': 'off',
  'files.autoSave': 'off',
  'remote.autoForwardPorts': false,
  'window.confirmBeforeClose': 'never',
};

/** Settings that are about a machine. VS Code in a browser reads them where its server runs, and nowhere else. */
const OF_MACHINE = /^gemma\.(server\.|model$|chatModel$|device$|threads$|memoryBudgetMb$)/;

export class CodeServer {
  readonly port: number;
  readonly #process: ChildProcess;

  private constructor(port: number, process: ChildProcess) {
    this.port = port;
    this.#process = process;
  }

  static async start(sandbox: Sandbox, settings: Settings): Promise<CodeServer> {
    const home = sandbox.folder('home');
    const data = sandbox.folder('data');
    writeFileSync(join(sandbox.folder('data/User'), 'keybindings.json'), JSON.stringify(keybindings()));
    writeFileSync(join(sandbox.folder('data/User'), 'settings.json'), userSettings(settings));
    writeFileSync(join(sandbox.folder('data/Machine'), 'settings.json'), machineSettings(settings));

    const profile = ['--user-data-dir', data, '--extensions-dir', sandbox.folder('extensions')];
    // A home of its own: neither the user's configuration nor the user's statistics are touched.
    const environment = { PATH: process.env['PATH'], LANG: 'C.UTF-8', HOME: home };
    await promisify(execFile)(process.execPath, [codeServer, ...profile, '--install-extension', places.extension()], {
      env: environment,
      timeout: PATIENCE_MS,
    });

    // A port that the system chooses, so that nobody can take it in between.
    const options = ['--auth', 'none', '--bind-addr', '127.0.0.1:0', '--disable-telemetry'];
    const quiet = ['--disable-update-check', '--disable-workspace-trust', '--disable-getting-started-override'];
    const log = join(sandbox.root, 'code-server.log');
    const output = openSync(log, 'a');
    const child = spawn(process.execPath, [codeServer, ...profile, ...options, ...quiet], {
      env: environment,
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    try {
      const port = await until('code-server to listen', () => {
        if (child.exitCode !== null) {
          throw new Error(`code-server ended with status ${child.exitCode}:\n${readFileSync(log, 'utf8')}`);
        }
        return /HTTP server listening on http:\/\/127\.0\.0\.1:(\d+)/.exec(readFileSync(log, 'utf8'))?.[1];
      });
      await until('code-server to answer', async () => {
        const answer = await fetch(`http://127.0.0.1:${port}/healthz`).catch(() => undefined);
        return answer?.ok;
      });
      return new CodeServer(Number(port), child);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  url(folder: string): string {
    return `http://127.0.0.1:${this.port}/?folder=${encodeURIComponent(folder)}`;
  }

  /** Ends it as it wants to be ended; by force, and with an error, where that takes too long. */
  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) {
      return;
    }
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.kill('SIGTERM');
    try {
      await within('the end of code-server', PATIENCE_MS, ended);
    } catch (error) {
      this.#process.kill('SIGKILL');
      throw error;
    }
  }
}

/** What stands in the user's settings.json, on one line. */
export function userSettings(settings: Settings): string {
  const ofUser = Object.entries(settings).filter(([key]) => !OF_MACHINE.test(key));
  return JSON.stringify({ ...QUIET, ...Object.fromEntries(ofUser) });
}

function machineSettings(settings: Settings): string {
  return JSON.stringify(Object.fromEntries(Object.entries(settings).filter(([key]) => OF_MACHINE.test(key))));
}
