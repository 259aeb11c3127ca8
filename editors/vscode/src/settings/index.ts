// The user's settings: read for the server, written by the menus.

import { ConfigurationTarget, type Extension, workspace } from 'vscode';

import { serverKeys, userSettings } from './values';

interface Property {
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
}

/** The settings that package.json contributes, which mirror the server's schema. */
export class Settings {
  private readonly properties: Readonly<Record<string, Property>>;
  private readonly keys: readonly string[];

  constructor(extension: Extension<unknown>) {
    const sections: { properties: Record<string, Property> }[] = extension.packageJSON.contributes.configuration;
    this.properties = Object.assign({}, ...sections.map((section) => section.properties));
    this.keys = serverKeys(Object.keys(this.properties));
  }

  /** What the user has set, as the server wants it. */
  forServer(): Record<string, unknown> {
    const configuration = workspace.getConfiguration('gemma');
    return userSettings(this.keys, (key) => configuration.inspect(key));
  }

  /** The values that a setting may have. */
  choices(key: string): string[] {
    const values = this.properties[`gemma.${key}`]?.enum ?? [];
    return values.filter((value) => typeof value === 'string');
  }

  /** Writes a setting where it is set already, else for the user. `undefined` takes it away. */
  async write(key: string, value: unknown): Promise<void> {
    const configuration = workspace.getConfiguration('gemma');
    const inWorkspace = configuration.inspect(key)?.workspaceValue !== undefined;
    const target = inWorkspace ? ConfigurationTarget.Workspace : ConfigurationTarget.Global;
    await configuration.update(key, value, target);
  }
}

/** The extension's own settings about the server's process. */
export interface ServerSettings {
  readonly path: string;
  readonly arguments: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

export function serverSettings(): ServerSettings {
  const configuration = workspace.getConfiguration('gemma.server');
  return {
    path: configuration.get('path', ''),
    arguments: configuration.get('arguments', []),
    environment: configuration.get('environment', {}),
  };
}
