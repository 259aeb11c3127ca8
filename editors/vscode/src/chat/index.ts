// The chat: what the rest of the extension may ask of it.

import type { ExtensionContext } from 'vscode';

import type { Gemma } from '../gemma';
import type { Question } from '../protocol';

export interface ChatApi {
  /** Opens the chat and asks. Without parameters it is opened only. */
  ask(question?: Question): Promise<void>;
}

export function activateChat(_context: ExtensionContext, _gemma: Gemma): ChatApi {
  return { ask: async () => {} };
}
