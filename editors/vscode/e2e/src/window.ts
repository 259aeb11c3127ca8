// One window of VS Code, worked with as a person does: keys go in, and what is on the screen comes out.

import { basename } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Locator, Page } from 'playwright-core';
import { ghostText } from './ghost.ts';
import { KEY } from './keys.ts';
import { until } from './wait.ts';

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

  async command(title: string): Promise<void> {
    await this.pick('F1', `>${title}`, title);
  }

  /** Opens the field on top with a key, writes into it, and takes the row that is marked then. */
  private async pick(key: string, text: string, row: string): Promise<void> {
    const input = this.page.locator('.quick-input-widget input.input');
    const marked = this.page.locator('.quick-input-list .monaco-list-row.focused').filter({ hasText: row });
    await until(`${row} in the field on top`, async () => {
      // Where the focus is about to move, a key is lost, or the field closes again.
      await this.page.keyboard.press(key);
      const limit = { timeout: 5_000 };
      const found = input.fill(text, limit).then(() => marked.waitFor(limit));
      return found.then(() => true, () => false);
    });
    await this.page.keyboard.press('Enter');
  }

  /** The row of the open menu that has this text in it. */
  row(text: string | RegExp): Locator {
    return this.page.locator('.quick-input-widget .quick-input-list .monaco-list-row').filter({ hasText: text });
  }

  /** Opens the menu of the status bar item. */
  async openMenu(): Promise<void> {
    await this.status.click();
    await this.row('Open the log').waitFor();
  }

  /** Chooses an entry of the menu of the status bar item. */
  async choose(entry: string): Promise<void> {
    await this.openMenu();
    await this.row(entry).click();
    await this.page.locator('.quick-input-widget').waitFor({ state: 'hidden' });
  }

  /** Opens a file of the project, and puts the cursor at its end. */
  async show(name: string): Promise<void> {
    await this.pick('Control+p', `${this.#folder}/${name}`, basename(name));
    await this.tab(basename(name)).waitFor();
    await this.focus();
    await this.page.keyboard.press('Control+End');
  }

  /** The tab of the active editor, if it is the one of this file. */
  private tab(name: string): Locator {
    return this.page.locator('.editor-group-container.active .tab.active').filter({ hasText: name });
  }

  /** Puts the keyboard into the editor. */
  async focus(): Promise<void> {
    const focused = this.page.locator('.editor-group-container.active .editor-instance .monaco-editor.focused');
    await until('the editor to have the keyboard', async () => {
      // A view that has just been opened takes the keyboard a moment later, and while it does a key is lost.
      await this.page.keyboard.press(KEY.focusEditor);
      return focused.waitFor({ timeout: 2_000 }).then(() => true, () => false);
    });
  }

  type(text: string): Promise<void> {
    return this.page.keyboard.type(text);
  }

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

  ghostGone(): Promise<true> {
    return until('the grey text to go', async () => (await this.ghost()) === undefined);
  }

  /** Saves the file, which was changed, and waits until it is. */
  async save(): Promise<void> {
    const tab = '.editor-group-container.active .tab.active';
    await this.page.locator(`${tab}.dirty`).waitFor();
    await this.page.keyboard.press('Control+s');
    await this.page.locator(`${tab}:not(.dirty)`).waitFor();
  }

  /** What VS Code tells in the corner. */
  notices(): Promise<string[]> {
    return this.page.locator('.notification-toast .notification-list-item-message').allInnerTexts();
  }

  async paste(text: string): Promise<void> {
    await this.page.evaluate((words) => navigator.clipboard.writeText(words), text);
    await this.page.keyboard.press('Control+v');
  }

  /** Writes the user's settings, as someone does who edits the file in VS Code. */
  async configure(settings: string): Promise<void> {
    await until('the settings', async () => {
      await this.page.keyboard.press(KEY.settings);
      return this.tab('settings.json').waitFor({ timeout: 5_000 }).then(() => true, () => false);
    });
    await this.focus();
    await this.page.keyboard.press('Control+a');
    await this.paste(settings);
    await this.save();
    await this.page.keyboard.press(KEY.discard);
    await this.tab('settings.json').waitFor({ state: 'detached' });
  }

  /** Closes everything, and asks nobody. */
  async tidy(): Promise<void> {
    await this.page.keyboard.press('Escape');
    await this.page.keyboard.press(KEY.clearNotices);
    const tabs = this.page.locator('.editor-group-container .tab');
    await until('the editors to close', async () => {
      const left = await tabs.count();
      if (left > 0) {
        await this.page.keyboard.press(KEY.discard);
      }
      return left === 0;
    });
  }
}
