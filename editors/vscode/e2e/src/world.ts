// All that a test works with: VS Code, its windows, the folder that is open in them, and the servers behind them.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import type { Browser, BrowserContext } from 'playwright-core';
import { openBrowser } from './browser.ts';
import { CodeServer, type Settings, userSettings } from './codeServer.ts';
import { places, Sandbox } from './places.ts';
import { Servers } from './servers.ts';
import { typeLast } from './suggestion.ts';
import { LINE } from './texts.ts';
import { PATIENCE_MS, until, within } from './wait.ts';
import { Window } from './window.ts';

/** What the server has for the settings that a test changes where VS Code has none. */
const DEFAULTS: Settings = { multiLine: 'auto', trigger: 'automatic', languagesOff: [] };

export class World {
  readonly sandbox: Sandbox;
  readonly servers: Servers;
  readonly windows: Window[] = [];
  readonly #vscode: CodeServer;
  readonly #browser: Browser;
  readonly #context: BrowserContext;
  readonly #folder: string;
  readonly #settings: Settings;
  #shared: Window | undefined;
  #configured = false;
  #ended = false;

  private constructor(sandbox: Sandbox, servers: Servers, vscode: CodeServer, settings: Settings, context: BrowserContext) {
    const browser = context.browser();
    if (browser === null) {
      throw new Error('the browser is gone');
    }
    this.sandbox = sandbox;
    this.servers = servers;
    this.#vscode = vscode;
    this.#settings = settings;
    this.#context = context;
    this.#browser = browser;
    this.#folder = sandbox.folder('project');
  }

  static async create(): Promise<World> {
    const sandbox = new Sandbox();
    const servers = new Servers(sandbox);
    const settings: Settings = {
      'gemma.server.path': servers.command,
      'gemma.model': places.model(),
      'gemma.server.environment': { GEMMA_LS_MODELS: places.pictureModel(), XDG_DATA_HOME: sandbox.folder('statistics') },
      // A slow machine is to be slow, not to fail.
      'gemma.maxTimeMs': 120_000,
      'gemma.maxTokens': 32,
    };
    const vscode = await CodeServer.start(sandbox, settings);
    try {
      return new World(sandbox, servers, vscode, settings, await openBrowser());
    } catch (error) {
      await vscode.stop();
      throw error;
    }
  }

  /** Opens a window on the project's folder, or on a folder of its own that has these settings. */
  async open(name?: string, settings: Settings = {}): Promise<Window> {
    const folder = name === undefined ? this.#folder : this.sandbox.folder(name);
    if (name !== undefined) {
      writeFileSync(join(this.sandbox.folder(`${name}/.vscode`), 'settings.json'), JSON.stringify(settings));
    }
    const window = await Window.open(await this.#context.newPage(), this.#vscode.url(folder), folder);
    this.windows.push(window);
    return window;
  }

  /** The window that tests share, with a server that is ready. */
  async window(): Promise<Window> {
    if (this.#shared === undefined) {
      this.#shared = await this.open();
      await this.#shared.ready();
      await this.#settle(this.#shared);
    }
    await this.#shared.ready();
    return this.#shared;
  }

  /** Waits until a VS Code that has just started asks for suggestions. */
  async #settle(window: Window): Promise<void> {
    const file = this.write('settle.py', LINE.slice(0, -1));
    await window.show('settle.py');
    await typeLast(this, window, 'settle.py', LINE);
    await window.tidy();
    rmSync(file);
  }

  async close(window: Window): Promise<void> {
    this.windows.splice(this.windows.indexOf(window), 1);
    await window.page.close();
  }

  /** The path of a file of the project with this text. */
  write(name: string, content: string | Buffer): string {
    const path = join(this.#folder, name);
    writeFileSync(path, content);
    return path;
  }

  uri(name: string): string {
    return pathToFileURL(join(this.#folder, name)).href;
  }

  read(name: string): string {
    return readFileSync(join(this.#folder, name), 'utf8');
  }

  /** Has settings that VS Code writes put back at the end of the test. */
  restoreSettings(): void {
    this.#configured = true;
  }

  /** Changes VS Code's settings until the end of the test, and waits until the server has them. */
  async configure(settings: Settings): Promise<void> {
    this.#configured = true;
    await this.#apply({ ...this.#settings, ...settings });
  }

  async #apply(settings: Settings): Promise<void> {
    const window = await this.window();
    await window.configure(userSettings(settings), join(this.sandbox.folder('data/User'), 'settings.json'));
    const server = await this.servers.current();
    await until('the server to have the settings', async () => {
      const status = await server.ask<{ settings: Settings }>('gemma/status', {});
      return Object.entries(status.settings).every(([key, value]) => {
        const wanted = settings[`gemma.${key}`] ?? DEFAULTS[key];
        return wanted === undefined || isDeepStrictEqual(value, wanted);
      });
    });
  }

  /** Leaves the shared window as the next test wants to find it. */
  async tidy(): Promise<void> {
    if (this.#ended) {
      return;
    }
    this.servers.delay();
    this.servers.script();
    if (this.#configured) {
      this.#configured = false;
      await this.#apply(this.#settings);
    }
    for (const window of this.windows.filter((one) => one !== this.#shared)) {
      await this.close(window);
    }
    await this.#shared?.tidy();
  }

  /** Ends browser and VS Code. Once they are told to end, this does nothing more. */
  async end(): Promise<void> {
    if (this.#ended) {
      return;
    }
    this.#ended = true;
    await within('the end of the browser', PATIENCE_MS, this.#browser.close()).finally(() => this.#vscode.stop());
  }
}
