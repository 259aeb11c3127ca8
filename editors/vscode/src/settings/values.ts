// Which settings the server gets, and what of them.
//
// Only what the user has set is sent. VS Code's defaults would otherwise be put over the user's own
// gemma-ls/config.json, which every editor shares.

const PREFIX = 'gemma.';

/** What `inspect` tells of a setting, as far as it matters here. */
export interface Inspected {
  globalValue?: unknown;
  workspaceValue?: unknown;
  workspaceFolderValue?: unknown;
}

/** The user's value; the nearest one wins, as VS Code has it. */
export function userValue(inspected: Inspected | undefined): unknown {
  return inspected?.workspaceFolderValue ?? inspected?.workspaceValue ?? inspected?.globalValue;
}

/** The server's settings are flat; a dot in a key marks one of the extension's own. */
export function serverKeys(contributed: Iterable<string>): string[] {
  return [...contributed]
    .filter((key) => key.startsWith(PREFIX))
    .map((key) => key.slice(PREFIX.length))
    .filter((key) => !key.includes('.'));
}

/** What the user has set of `keys`. */
export function userSettings(
  keys: readonly string[],
  inspect: (key: string) => Inspected | undefined,
): Record<string, unknown> {
  const entries = keys.map((key) => [key, userValue(inspect(key))] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== null));
}
