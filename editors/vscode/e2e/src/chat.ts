// The chat view, as a person uses it: write, send, read the answer, stop it.

import type { FrameLocator, Locator } from 'playwright-core';
import { insist, ONE_TRY, until } from './wait.ts';
import type { Window } from './window.ts';

export class ChatView {
  readonly page: FrameLocator;
  readonly turns: Locator;
  readonly field: Locator;

  private constructor(window: Window) {
    this.page = window.page.frameLocator('iframe.webview.ready').frameLocator('#active-frame');
    this.turns = this.page.locator('.turn');
    this.field = this.page.locator('textarea');
  }

  /** Begins a new conversation. */
  static async begin(window: Window): Promise<ChatView> {
    const view = new ChatView(window);
    const begun = async (): Promise<boolean> => (await view.#hasKeyboard()) && (await view.turns.count()) === 0;
    await insist(
      'an empty conversation with the keyboard in it',
      async () => {
        // From the editor, so that it is known when the keyboard has moved: until then it could be taken from what comes next.
        await window.focusIfThere();
        await window.command('Gemma: New Chat');
      },
      begun,
    );
    return view;
  }

  /** The view as it is, once it is there. */
  static async of(window: Window): Promise<ChatView> {
    const view = new ChatView(window);
    await view.field.waitFor();
    return view;
  }

  async ask(question: string): Promise<void> {
    const before = await this.turns.count();
    await this.field.fill(question);
    // In a field that is empty, Enter does nothing.
    await insist(
      'the question to be sent',
      (limit) => this.field.press('Enter', limit),
      async () => (await this.field.inputValue(ONE_TRY)) === '',
    );
    await until('the question in the conversation', async () => (await this.turns.count()) > before);
  }

  /** Stops the answer, where it has not come to its end by itself. */
  async stop(): Promise<void> {
    const button = this.page.getByRole('button', { name: /^Stop/ });
    await insist(
      'the answer to stop',
      // A click wants a page that holds still for some frames, which one with text streaming in may not have to give.
      (limit) => button.click(limit).catch(() => this.field.press('Escape', limit)),
      () => this.#isComplete(this.turns.last()),
    );
  }

  /** The turn of this number, from 1, once its answer is complete. */
  async answered(number: number): Promise<Locator> {
    const turn = this.turns.nth(number - 1);
    await until(`answer ${number}`, async () => {
      return (await this.turns.count()) >= number && (await this.#isComplete(turn));
    });
    return turn;
  }

  async #isComplete(turn: Locator): Promise<boolean> {
    return (await turn.getAttribute('aria-busy')) === 'false';
  }

  async #hasKeyboard(): Promise<boolean> {
    const has = this.field.evaluate((field) => document.hasFocus() && document.activeElement === field, undefined, ONE_TRY);
    return has.catch(() => false);
  }
}
