// A program that stands between VS Code and the server: it passes everything on, writes it down, and lets a test ask
// the server questions of its own, delay answers, and make some up.
// Usage: node tap.ts FOLDER SERVER [ARGUMENT...]

import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Message, Frames, frame } from './frames.ts';

const [folder, program, ...rest] = process.argv.slice(2);
if (folder === undefined || program === undefined) {
  throw new Error('usage: node tap.ts FOLDER SERVER [ARGUMENT...]');
}

const server = spawn(program, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
const name = join(folder, String(server.pid));
const asked = new Map<string, Socket>();

function note(from: 'client' | 'server', message: Message): void {
  appendFileSync(`${name}.jsonl`, `${JSON.stringify({ at: Date.now(), from, message })}\n`);
}

/** What a test wants of this program stands in files. */
function wish(file: string): string | undefined {
  return existsSync(join(folder as string, file)) ? readFileSync(join(folder as string, file), 'utf8') : undefined;
}

/** By how many milliseconds answers are to be late. */
function delay(): number {
  return Number(wish('delay') ?? 0);
}

/** The answer that a test made up for a method. */
function script(method: string): { result: unknown } | undefined {
  const scripts = JSON.parse(wish('script') ?? '{}') as Record<string, unknown>;
  return method in scripts ? { result: scripts[method] } : undefined;
}

const toServer = new Frames();
process.stdin.on('data', (bytes: Buffer) => {
  for (const { message, bytes: whole } of toServer.push(bytes)) {
    note('client', message);
    const scripted = message.id !== undefined && message.method !== undefined && script(message.method);
    if (scripted) {
      process.stdout.write(frame({ id: message.id, result: scripted.result }));
    } else {
      server.stdin.write(whole);
    }
  }
});
process.stdin.on('end', () => server.stdin.end());
// A server that was killed cannot be written to. What matters of that is told by its end.
server.stdin.on('error', () => undefined);

const toClient = new Frames();
server.stdout.on('data', (bytes: Buffer) => {
  for (const { message, bytes: whole } of toClient.push(bytes)) {
    const asker = message.method === undefined && asked.get(String(message.id));
    if (asker) {
      asked.delete(String(message.id));
      asker.write(`${JSON.stringify(message)}\n`);
    } else {
      note('server', message);
      // What a slow machine would do: the answer comes late, and what is not an answer does not wait for it.
      setTimeout(() => process.stdout.write(whole), message.method === undefined ? delay() : 0);
    }
  }
});

let questions = 0;
const door = createServer((socket) => {
  socket.on('error', () => undefined);
  createInterface({ input: socket }).on('line', (line) => {
    const id = `test-${++questions}`;
    asked.set(id, socket);
    server.stdin.write(frame({ ...(JSON.parse(line) as Message), id }));
  });
});
door.listen(`${name}.sock`);

/** Ends as the server did, so that VS Code sees what it would have seen without the tap. */
server.on('close', (status, signal) => {
  rmSync(`${name}.sock`, { force: true });
  if (signal) {
    process.kill(process.pid, signal);
  } else {
    process.exit(status ?? 1);
  }
});
process.on('SIGTERM', () => server.kill('SIGTERM'));
