// Where everything lies: what the environment names, what was installed, and the folder of this run.

import { existsSync, mkdtempSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** The value of an environment variable that names a file or folder that is there. */
function fromEnvironment(name: string, meaning: string): string {
  const value = process.env[name];
  if (!value) {
    throw new Error(`$${name} is not set: it names ${meaning}.`);
  }
  if (!existsSync(value)) {
    throw new Error(`$${name} is ${value}, and there is no such file: it names ${meaning}.`);
  }
  return resolve(value);
}

export const e2e = resolve(import.meta.dirname, '..');
export const media = resolve(e2e, '../media');
export const codeServer = join(e2e, 'node_modules/code-server/out/node/entry.js');

export const places = {
  binary: () => fromEnvironment('GEMMA_LS_BIN', 'the gemma-ls to test'),
  model: () => fromEnvironment('GEMMA_LS_TEST_MODEL', 'the file gemma-3-270m-q4_k_m.gguf'),
  pictureModel: () => fromEnvironment('GEMMA_LS_TEST_PALIGEMMA', 'the folder of a small PaliGemma'),
  extension: () => fromEnvironment('GEMMA_E2E_VSIX', 'the packaged extension'),
};

/** A folder of this run, with a folder in it for each thing. */
export class Sandbox {
  readonly root = mkdtempSync(join(tmpdir(), 'gemma-e2e-'));

  folder(name: string): string {
    const path = join(this.root, name);
    mkdirSync(path, { recursive: true });
    return path;
  }
}
