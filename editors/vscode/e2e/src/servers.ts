// What the tests know of the servers that VS Code started: what was said, and answers to questions of their own.

import { chmodSync, existsSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Message } from './frames.ts';
import { e2e, places, type Sandbox } from './places.ts';
import { PATIENCE_MS, until, within } from './wait.ts';

export interface Said {
  at: number;
  from: 'client' | 'server';
  message: Message;
}

/** A request and its answer, where there is one by now. */
export interface Exchange {
  params: unknown;
  result: unknown;
  error: Message['error'];
  answered: boolean;
}

export class Server {
  readonly pid: number;
  readonly #file: string;

  constructor(folder: string, pid: number) {
    this.pid = pid;
    this.#file = join(folder, String(pid));
  }

  get alive(): boolean {
    return existsSync(`${this.#file}.sock`);
  }

  /** Whether the process is there, whatever it does. */
  get exists(): boolean {
    try {
      return process.kill(this.pid, 0);
    } catch {
      return false;
    }
  }

  said(): Said[] {
    const lines = readFileSync(`${this.#file}.jsonl`, 'utf8').split('\n');
    // The last line is empty, or is still being written.
    return lines.slice(0, -1).map((line) => JSON.parse(line) as Said);
  }

  /** What the client asked by `method`, in order. */
  exchanges(method: string): Exchange[] {
    const said = this.said();
    const answers = new Map(
      said.filter((s) => s.from === 'server' && s.message.method === undefined).map((s) => [s.message.id, s.message]),
    );
    return said
      .filter((s) => s.from === 'client' && s.message.method === method && s.message.id !== undefined)
      .map(({ message }) => {
        const answer = answers.get(message.id);
        return { params: message.params, result: answer?.result, error: answer?.error, answered: answer !== undefined };
      });
  }

  /** What the client told by `method`. */
  told(method: string): unknown[] {
    return this.said()
      .filter((s) => s.from === 'client' && s.message.method === method)
      .map((s) => s.message.params);
  }

  /** Asks the server behind the client's back. */
  ask<R>(method: string, params: unknown): Promise<R> {
    const answered = new Promise<R>((resolve, reject) => {
      const socket = connect(`${this.#file}.sock`, () => socket.write(`${JSON.stringify({ method, params })}\n`));
      socket.on('error', reject);
      socket.on('close', () => reject(new Error(`${method}: the server ended before it answered`)));
      createInterface({ input: socket }).once('line', (line) => {
        const { result, error } = JSON.parse(line) as Message;
        if (error) {
          reject(new Error(`${method}: ${error.message}`));
        } else {
          resolve(result as R);
        }
        socket.destroy();
      });
    });
    return within(`the answer to ${method}`, PATIENCE_MS, answered);
  }

  kill(): void {
    process.kill(this.pid, 'SIGKILL');
  }
}

export class Servers {
  /** What VS Code is to start as the server. */
  readonly command: string;
  readonly #folder: string;

  constructor(sandbox: Sandbox) {
    this.#folder = sandbox.folder('servers');
    this.command = join(this.#folder, 'gemma-ls');
    const tap = [process.execPath, join(e2e, 'src/tap.ts'), this.#folder];
    const quoted = (words: string[]): string => words.map((word) => `'${word}'`).join(' ');
    // Only the language server is listened to: VS Code asks for the version, too.
    const script = `#!/bin/sh
case $1 in
lsp) exec ${quoted([...tap, places.binary()])} "$@" ;;
*) exec ${quoted([places.binary()])} "$@" ;;
esac
`;
    writeFileSync(this.command, script);
    chmodSync(this.command, 0o755);
  }

  /** Makes all answers late, by nothing unless told otherwise. */
  delay(milliseconds = 0): void {
    this.#wish('delay', String(milliseconds));
  }

  /** Puts made-up answers in the place of the server's, for the methods that are named. */
  script(answers: Record<string, unknown> = {}): void {
    this.#wish('script', JSON.stringify(answers));
  }

  /** Leaves a file for the tap, which is never to find half of one. */
  #wish(name: string, text: string): void {
    const file = join(this.#folder, name);
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  }

  /** Those that have started, in the order in which they did. */
  all(): Server[] {
    return readdirSync(this.#folder)
      .filter((name) => name.endsWith('.jsonl'))
      .map((name) => new Server(this.#folder, Number.parseInt(name, 10)))
      .sort((a, b) => (a.said()[0]?.at ?? 0) - (b.said()[0]?.at ?? 0));
  }

  /** The running server that started last, as soon as there is one. */
  current(): Promise<Server> {
    return until('a running server', () => this.all().findLast((server) => server.alive));
  }
}
