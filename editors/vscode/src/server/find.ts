// Finds the program gemma-ls: where the setting says, next to the extension, or on PATH.

import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';

/** Where to look. Everything comes in from outside, so that a test can have it otherwise. */
export interface Places {
  /** The setting `gemma.server.path`; empty where it is not set. */
  readonly setting: string;
  /** The folder of the extension. */
  readonly extension: string;
  readonly path: string;
  readonly home: string;
  readonly platform: NodeJS.Platform;
}

export interface Found {
  readonly program: string;
  readonly from: 'setting' | 'extension' | 'path';
}

export type Search = Found | { readonly program?: never; readonly problem: string };

/**
 * A setting that leads nowhere is told about. Something else in its place would be a surprise: it may be
 * another version.
 */
export async function find(places: Places): Promise<Search> {
  const setting = places.setting.trim();
  if (setting !== '') {
    const program = await fromSetting(setting, places);
    if (program !== undefined) {
      return { program, from: 'setting' };
    }
    const problem = `The setting gemma.server.path says ${setting}, and there is no program of that name that can be run.`;
    return { problem };
  }
  const bundled = join(places.extension, 'server', fileName(places.platform));
  if (await isProgram(bundled)) {
    return { program: bundled, from: 'extension' };
  }
  const program = await onPath(fileName(places.platform), places.path);
  if (program !== undefined) {
    return { program, from: 'path' };
  }
  return { problem: 'The program gemma-ls was not found: it is not on PATH, and the setting gemma.server.path is empty.' };
}

export function describe({ program, from }: Found): string {
  switch (from) {
    case 'setting':
      return `${program}, as the setting gemma.server.path says`;
    case 'extension':
      return `${program}, which came with the extension`;
    case 'path':
      return `${program}, found on PATH`;
  }
}

function fromSetting(setting: string, places: Places): Promise<string | undefined> | string | undefined {
  const expanded = /^~[/\\]/.test(setting) ? join(places.home, setting.slice(2)) : setting;
  if (!/[/\\]/.test(expanded)) {
    return onPath(expanded, places.path);
  }
  // A relative path would mean another program in each folder.
  return isAbsolute(expanded) ? firstProgram([expanded]) : undefined;
}

function onPath(name: string, path: string): Promise<string | undefined> {
  const folders = path.split(delimiter).filter((folder) => isAbsolute(folder));
  return firstProgram(folders.map((folder) => join(folder, name)));
}

async function firstProgram(candidates: string[]): Promise<string | undefined> {
  for (const candidate of candidates) {
    if (await isProgram(candidate)) {
      return candidate;
    }
  }
  return undefined;
}

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

function fileName(platform: NodeJS.Platform): string {
  return platform === 'win32' ? 'gemma-ls.exe' : 'gemma-ls';
}
