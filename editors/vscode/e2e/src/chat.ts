// The chat view, as a person uses it: write, send, read the answer, stop it.

import type { FrameLocator, Locator } from 'playwright-core';
import { until } from './wait.ts';
import type { Window } from './window.ts';

export class ChatView {
  readonly page: FrameLocator;
  readonly turns: Locator;
  readonly field: Locator;
  readonly #window: Window;

  private constructor(window: Window) {
    this.#window = window;
    this.page = window.page.frameLocator('iframe.webview.ready').frameLocator('#active-frame');
    this.turns = this.page.locator('.turn');
    this.field = this.page.locator('textarea');
  }

  /** Begins a new conversation. */
  static async begin(window: Window): Promise<ChatView> {
    const view = new ChatView(window);
    await window.command('Gemma: New Chat');
    await view.field.waitFor();
    await until('an empty conversation', async () => (await view.turns.count()) === 0);
    return view;
  }

  /** The view as it is, once it is there. */
  static async of(window: Window): Promise<ChatView> {
    const view = new ChatView(window);
    await view.field.waitFor();
    return view;
  }

  async ask(question: string): Promise<void> {
    await this.field.click();
    await this.field.fill(question);
    await this.#window.press('Enter');
  }

  async stop(): Promise<void> {
    await this.page.getByRole('button', { name: /^Stop/ }).click();
  }

  /** The turn of this number, from 1, once its answer is complete. */
  async answered(number: number): Promise<Locator> {
    const turn = this.turns.nth(number - 1);
    await until(`answer ${number}`, async () => {
      return (await this.turns.count()) >= number && (await turn.getAttribute('aria-busy')) === 'false';
    });
    return turn;
  }
}
