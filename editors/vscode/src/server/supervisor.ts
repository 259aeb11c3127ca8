// Keeps a server running: finds it, starts it, starts it again after a crash, and answers for it meanwhile.

import { homedir } from 'node:os';

import {
  type CancellationToken,
  CancellationError,
  type Disposable,
  type Event,
  EventEmitter,
  type ExtensionContext,
  type LogOutputChannel,
  workspace,
} from 'vscode';

import { type Gemma, type RequestOptions, ServerError, type Status } from '../gemma';
import type { Cost, Notifications, Requests } from '../protocol';
import { serverSettings } from '../settings';
import { Backoff } from './backoff';
import type { Connection, Surroundings } from './connection';
import { describe, find } from './find';
import { ServerProcess } from './process';
import { checkVersion } from './version';

/** One start of the server, from the search for it to its end. */
interface Run {
  process?: ServerProcess;
  connection?: Connection;
  over?: true;
}

/** Requests wait here until there is a server, or until it is certain that there will be none. */
class Gate {
  readonly opened: Promise<Connection>;
  settled = false;
  private resolve!: (connection: Connection) => void;
  private reject!: (error: ServerError) => void;

  constructor() {
    this.opened = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Nobody may be waiting; that is no error.
    this.opened.catch(() => {});
  }

  open(connection: Connection): void {
    this.settled = true;
    this.resolve(connection);
  }

  shut(message: string): void {
    this.settled = true;
    this.reject(new ServerError(message));
  }
}

export class Supervisor implements Gemma, Disposable {
  /** Where the server is and what it is, once it was found. */
  description: string | undefined;
  status: Status = { state: 'starting', message: 'Starting gemma-ls' };
  readonly onDidChangeStatus: Event<Status>;
  readonly onDidComplete: Event<Cost>;

  private readonly changed = new EventEmitter<Status>();
  private readonly completed = new EventEmitter<Cost>();
  private readonly backoff = new Backoff();
  private gate = new Gate();
  /** The start that counts. What an earlier one still reports is of no interest. */
  private run: Run | undefined;
  private again: NodeJS.Timeout | undefined;

  constructor(
    private readonly context: ExtensionContext,
    readonly log: LogOutputChannel,
    private readonly surroundings: Pick<Surroundings, 'completions' | 'settings'>,
  ) {
    this.onDidChangeStatus = this.changed.event;
    this.onDidComplete = this.completed.event;
  }

  async request<M extends keyof Requests>(
    method: M,
    params: Requests[M]['params'],
    options: RequestOptions = {},
  ): Promise<Requests[M]['answer']> {
    const connection = await unlessCancelled(this.gate.opened, [options.token, options.stop]);
    return connection.request(method, params, options);
  }

  notify<M extends keyof Notifications>(method: M, params: Notifications[M]): void {
    this.run?.connection?.notify(method, params);
  }

  /** Starts the server, in place of one that may be running. */
  async restart(): Promise<void> {
    this.backoff.reset();
    await this.end();
    await this.start();
  }

  /** Ends the server. */
  async end(): Promise<void> {
    clearTimeout(this.again);
    const run = this.run;
    this.run = undefined;
    await run?.connection?.close();
    await run?.process?.end();
  }

  dispose(): void {
    clearTimeout(this.again);
    this.changed.dispose();
    this.completed.dispose();
  }

  async start(): Promise<void> {
    const run: Run = {};
    this.run = run;
    this.closeGate();
    this.set({ state: 'starting', message: 'Starting gemma-ls' });
    try {
      await this.bringUp(run);
    } catch (error) {
      await this.broken(run, error instanceof Error ? error.message : String(error));
    }
  }

  private async bringUp(run: Run): Promise<void> {
    const { path, arguments: given, environment } = serverSettings();
    const search = await find({
      setting: path,
      extension: this.context.extensionPath,
      path: process.env['PATH'] ?? '',
      home: homedir(),
      platform: process.platform,
    });
    if (search.program === undefined) {
      return this.missing(run, search.problem);
    }
    const check = await checkVersion(search.program);
    if (check.version === undefined) {
      return this.missing(run, check.problem);
    }
    if (run !== this.run) {
      return;
    }
    this.description = `gemma-ls ${check.version}: ${describe(search)}`;
    this.log.info(`Starting ${this.description}`);
    const command = { program: search.program, arguments: given, environment, folder: firstFolder() };
    run.process = await ServerProcess.start(command, this.log);
    const { Connection } = await import('./connection');
    const connection = await Connection.open(run.process, {
      ...this.surroundings,
      log: this.log,
      onStatus: (status) => {
        if (run === this.run) {
          this.set(status);
        }
      },
      onCost: (cost) => this.completed.fire(cost),
      onBroken: () => void this.broken(run),
    });
    if (run !== this.run) {
      await connection?.close();
      await run.process.end();
      return;
    }
    if (connection === undefined) {
      return this.broken(run);
    }
    run.connection = connection;
    this.gate.open(connection);
  }

  /** Trying again would find the same. */
  private missing(run: Run, problem: string): void {
    if (run === this.run) {
      this.giveUp('missing', problem);
    }
  }

  /** A server that is gone without having been asked to go, or that never came. */
  private async broken(run: Run, reason?: string): Promise<void> {
    if (run !== this.run) {
      await run.process?.end();
      return;
    }
    if (run.over) {
      return;
    }
    run.over = true;
    delete run.connection;
    this.closeGate();
    await run.process?.end();
    const why = reason ?? (await run.process?.ended);
    if (run !== this.run) {
      return;
    }
    const delay = this.backoff.crashed(Date.now());
    if (delay === 'give up') {
      const message = `gemma-ls stopped again: ${why}. After so many times it is not started by itself any more.`;
      return this.giveUp('stopped', message);
    }
    const message = `gemma-ls stopped: ${why}. It starts again in ${delay / 1000} s.`;
    this.log.warn(message);
    this.set({ state: 'restarting', message });
    this.again = setTimeout(() => void this.start(), delay);
  }

  private giveUp(state: 'missing' | 'stopped', message: string): void {
    this.log.error(message);
    this.gate.shut(message);
    this.set({ state, message });
  }

  /** From now on requests wait. */
  private closeGate(): void {
    if (this.gate.settled) {
      this.gate = new Gate();
    }
  }

  private set(status: Status): void {
    this.status = status;
    this.changed.fire(status);
  }
}

function firstFolder(): string {
  const folder = workspace.workspaceFolders?.find(({ uri }) => uri.scheme === 'file');
  return folder?.uri.fsPath ?? homedir();
}

function unlessCancelled<T>(promise: Promise<T>, tokens: (CancellationToken | undefined)[]): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = () => reject(new CancellationError());
    const listening = tokens.map((token) => token?.onCancellationRequested(cancel));
    if (tokens.some((token) => token?.isCancellationRequested === true)) {
      cancel();
    }
    promise.then(resolve, reject).finally(() => listening.forEach((listener) => listener?.dispose()));
  });
}
