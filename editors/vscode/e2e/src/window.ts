// One window of VS Code, worked with as a person does: keys go in, and what is on the screen comes out.

import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Locator, Page } from 'playwright-core';
import { ghostText } from './ghost.ts';
import { KEY } from './keys.ts';
import { insist, type Limit, until } from './wait.ts';

export class Window {
  readonly page: Page;
  /** The status bar item of the extension. */
  readonly status: Locator;
  /** The editor that has the file. */
  readonly editor: Locator;
  readonly #folder: string;

  private constructor(page: Page, folder: string) {
    this.page = page;
    this.#folder = folder;
    this.status = page.locator('.statusbar-item[id^="gemma-ls.gemma-ls"]');
    this.editor = page.locator('.editor-group-container.active .editor-instance .monaco-editor').first();
  }

  static async open(page: Page, url: string, folder: string): Promise<Window> {
    const window = new Window(page, folder);
    await page.goto(url);
    await page.locator('.monaco-workbench .part.editor').waitFor();
    await window.status.waitFor();
    return window;
  }

  /** Waits until the status bar shows that the server is ready for work. */
  async ready(): Promise<void> {
    await until('the status bar to say that Gemma is ready', async () => /\bready: /i.test(await this.statusText()));
  }

  /** What the status bar item says to those who cannot see it, which is more than it shows. */
  async statusText(): Promise<string> {
    return (await this.status.getAttribute('aria-label')) ?? '';
  }

  /** Carries out a command of the palette. What comes of it is for the caller to wait for. */
  async command(title: string): Promise<void> {
    await insist(`the command ${title}`, (limit) => this.pick('F1', `>${title}`, title, limit), () => true);
  }

  /** Opens the field on top with a key, writes into it, and takes the row that is marked then. Fails where it closes again. */
  private async pick(key: string, text: string, row: string, limit: Limit): Promise<void> {
    await this.page.keyboard.press(key);
    await this.page.locator('.quick-input-widget input.input').fill(text, limit);
    // Not with Enter: where the field closes again, that would go to whatever has the keyboard then.
    await this.page.locator('.quick-input-list .monaco-list-row.focused').filter({ hasText: row }).click(limit);
    await this.page.mouse.move(0, 0);
  }

  /** The row of the open menu that has this text in it. */
  row(text: string | RegExp): Locator {
    return this.page.locator('.quick-input-widget .quick-input-list .monaco-list-row').filter({ hasText: text });
  }

  /** Opens the menu of the status bar item. The answer is its rows, of which this is one. */
  async openMenu(row = 'Open the log'): Promise<string[]> {
    return insist(
      `the menu with "${row}"`,
      (limit) => this.status.click(limit),
      async () => {
        const rows = await this.row('').allInnerTexts();
        return rows.some((text) => text.includes(row)) && rows;
      },
    );
  }

  /** Chooses an entry of the menu of the status bar item. */
  async choose(entry: string): Promise<void> {
    const choose = async (limit: Limit): Promise<void> => {
      await this.status.click(limit);
      await this.row(entry).click(limit);
    };
    await insist(`"${entry}" in the menu`, choose, () => true);
    await until('the menu to close', () => this.isMenuClosed());
  }

  /** Closes the menu, and chooses nothing. */
  async closeMenu(): Promise<void> {
    await insist('the menu to close', () => this.press('Escape'), () => this.isMenuClosed());
  }

  private async isMenuClosed(): Promise<boolean> {
    return !(await this.page.locator('.quick-input-widget').isVisible());
  }

  /** Opens a file of the project, and puts the cursor at its end. */
  async show(name: string): Promise<void> {
    const path = join(this.#folder, name);
    await insist(
      `${name} in the editor`,
      (limit) => this.pick('Control+p', path, basename(name), limit),
      () => this.tab(basename(name)).isVisible(),
    );
    const lines = readFileSync(path, 'utf8').split(/\r?\n/);
    const end = `Ln ${lines.length}, Col ${[...(lines.at(-1) ?? '')].length + 1}`;
    await insist(
      `the cursor at the end of ${name}`,
      async () => {
        await this.focus();
        await this.page.keyboard.press('Control+End');
      },
      async () => (await this.position()) === end,
    );
  }

  /** The tab of the active editor, if it is the one of this file. */
  private tab(name: string): Locator {
    return this.page.locator('.editor-group-container.active .tab.active').filter({ hasText: name });
  }

  /** Puts the keyboard into the editor. */
  async focus(): Promise<void> {
    // A view that has just been opened takes the keyboard a moment later, and while it does a key is lost.
    const focused = this.page.locator('.editor-group-container.active .editor-instance .monaco-editor.focused');
    await insist('the editor to have the keyboard', () => this.press(KEY.focusEditor), () => focused.isVisible());
  }

  /** Puts the keyboard into the editor, where a file is open. */
  async focusIfThere(): Promise<void> {
    if (await this.editor.isVisible()) {
      await this.focus();
    }
  }

  /** Where the cursor is and how much is selected, as the status bar has it. */
  async position(): Promise<string> {
    return (await this.page.locator('[id="status.editor.selection"]').allInnerTexts()).join().trim();
  }

  /** Types into the editor. */
  async type(text: string): Promise<void> {
    await this.moving(text, () => this.page.keyboard.type(text));
  }

  /** Presses a key that moves the cursor, in most cases by writing or deleting something. */
  async edit(key: string): Promise<void> {
    await this.moving(key, () => this.press(key));
  }

  /** Where the cursor has not moved at all, nothing has arrived, and it can be done once more. */
  private async moving(what: string, act: () => Promise<void>): Promise<void> {
    const before = await this.position();
    let again = false;
    await insist(
      `the cursor to move by ${JSON.stringify(what)}`,
      async () => {
        if (again) {
          await this.focus();
        }
        again = true;
        await act();
      },
      async () => (await this.position()) !== before,
    );
  }

  /** Selects something in the editor with keys that always select the same. */
  async select(...keys: string[]): Promise<void> {
    await insist(
      'a selection',
      async () => {
        await this.focus();
        for (const key of keys) {
          await this.press(key);
        }
      },
      async () => (await this.position()).includes('selected'),
    );
  }

  /** Presses a key. Where it could get lost, it is for the caller to see to it. */
  press(key: string): Promise<void> {
    return this.page.keyboard.press(key);
  }

  /** The lines of grey text, where there is any. */
  ghost(): Promise<string[] | undefined> {
    return this.editor.evaluate(ghostText);
  }

  /** Waits for grey text. */
  ghostShown(): Promise<string[]> {
    return until('grey text', () => this.ghost());
  }

  /** Waits for this grey text. */
  ghostIs(lines: string[]): Promise<true> {
    return until(`the grey text ${JSON.stringify(lines)}`, async () => isDeepStrictEqual(await this.ghost(), lines));
  }

  /** Dismisses the grey text. */
  dismiss(): Promise<true> {
    return insist('the grey text to go', () => this.press('Escape'), async () => (await this.ghost()) === undefined);
  }

  /** Saves the file, which was changed, and waits until it is. */
  async save(): Promise<void> {
    const tab = this.page.locator('.editor-group-container.active .tab.active');
    await until('the file to be changed', async () => /\bdirty\b/.test((await tab.getAttribute('class')) ?? ''));
    await insist(
      'the file to be saved',
      () => this.press('Control+s'),
      async () => !/\bdirty\b/.test((await tab.getAttribute('class')) ?? 'dirty'),
    );
  }

  /** What VS Code tells in the corner. */
  notices(): Promise<string[]> {
    return this.page.locator('.notification-toast .notification-list-item-message').allInnerTexts();
  }

  /** Pastes into the editor. */
  async paste(text: string): Promise<void> {
    await this.page.evaluate((words) => navigator.clipboard.writeText(words), text);
    await this.edit('Control+v');
  }

  /** Writes the user's settings, which are in `file`, as someone does who edits them in VS Code. */
  async configure(settings: string, file: string): Promise<void> {
    const tab = this.tab('settings.json');
    await insist(
      'the settings to be written',
      async (limit) => {
        if (!(await tab.isVisible())) {
          await this.press(KEY.settings);
          await tab.waitFor(limit);
        }
        await this.focus();
        await this.press('Control+a');
        await this.page.evaluate((words) => navigator.clipboard.writeText(words), settings);
        await this.press('Control+v');
        await this.press('Control+s');
      },
      () => readFileSync(file, 'utf8') === settings,
    );
    await insist('the settings to close', () => this.press(KEY.discard), async () => !(await tab.isVisible()));
  }

  /** Closes everything, and asks nobody. */
  async tidy(): Promise<void> {
    const tabs = this.page.locator('.editor-group-container .tab');
    await insist(
      'the editors to close',
      async (limit) => {
        await this.press('Escape');
        await this.press(KEY.clearNotices);
        for (let left = await tabs.count(); left > 0; left--) {
          await this.press(KEY.discard);
          await until('one editor to close', async () => (await tabs.count()) < left, limit.timeout);
        }
      },
      async () => (await tabs.count()) === 0,
    );
  }
}
