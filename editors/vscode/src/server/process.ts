// The server's process: started, listened to, ended.

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import type { LogOutputChannel } from 'vscode';

import { parseLogLine } from './logline';

/** How long a server that was told to end may take. */
const PATIENCE_MS = 2000;

export interface Command {
  readonly program: string;
  readonly arguments: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly folder: string;
}

export class ServerProcess {
  /** Resolves when the process is gone, with a few words on how it went. */
  readonly ended: Promise<string>;

  private constructor(readonly child: ChildProcessWithoutNullStreams, log: LogOutputChannel) {
    this.ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        resolve(signal === null ? `its exit code was ${code}` : `it was ended by ${signal}`);
      });
    });
    child.on('error', (error) => log.error(`gemma-ls: ${error.message}`));
    createInterface({ input: child.stderr, crlfDelay: Infinity }).on('line', (line) => {
      const { level, text } = parseLogLine(line);
      log[level](text);
    });
  }

  /** Rejects where the system does not start the program. */
  static async start(command: Command, log: LogOutputChannel): Promise<ServerProcess> {
    const child = spawn(command.program, ['lsp', ...command.arguments], {
      cwd: command.folder,
      env: { ...process.env, ...command.environment },
      windowsHide: true,
    });
    await once(child, 'spawn');
    return new ServerProcess(child, log);
  }

  /** Lets it end by itself for a while, as it does when its input is closed. */
  async end(): Promise<void> {
    this.child.stdin.end();
    const timer = setTimeout(() => this.child.kill('SIGKILL'), PATIENCE_MS);
    await this.ended;
    clearTimeout(timer);
  }
}
