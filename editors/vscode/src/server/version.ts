// Asks a program whether it is gemma-ls, and which one.

import { execFile } from 'node:child_process';

/** The first server that speaks everything in editors/PROTOCOL.md. */
export const OLDEST = '0.1.0';

export type VersionCheck =
  | { readonly version: string }
  | { readonly version?: never; readonly problem: string };

/** How long a program may take to say its version; one on a slow network drive takes its time. */
const PATIENCE_MS = 10_000;

export async function checkVersion(program: string): Promise<VersionCheck> {
  const answer = await new Promise<string | Error>((resolve) => {
    execFile(program, ['--version'], { timeout: PATIENCE_MS, windowsHide: true }, (error, stdout) => {
      resolve(error ?? stdout);
    });
  });
  return answer instanceof Error
    ? { problem: `${program} cannot be run: ${answer.message.trim()}` }
    : judge(program, answer);
}

/** What `--version` printed, judged. */
export function judge(program: string, printed: string): VersionCheck {
  const version = /^gemma-ls (\d+\.\d+\.\d+\S*)/.exec(printed)?.[1];
  if (version === undefined) {
    const [line = ''] = printed.trim().split('\n');
    return { problem: `${program} is not gemma-ls: asked for its version, it says "${line.slice(0, 80)}".` };
  }
  if (isOlder(version, OLDEST)) {
    return { problem: `${program} is gemma-ls ${version}. The extension needs ${OLDEST} or newer.` };
  }
  return { version };
}

function isOlder(version: string, than: string): boolean {
  const numbers = (text: string) => text.split(/[.+-]/).slice(0, 3).map(Number);
  const [have, want] = [numbers(version), numbers(than)];
  for (const [index, wanted] of want.entries()) {
    const difference = (have[index] ?? 0) - wanted;
    if (difference !== 0) {
      return difference < 0;
    }
  }
  return false;
}
