// The extension, as the view sees it: somebody to send messages to, and to keep a draft with.

import type { ToHost } from '../src/chat/messages';

/** What outlives the view being hidden. */
export interface Kept {
  readonly draft?: string | undefined;
  readonly picture?: { readonly id: string; readonly name: string; readonly thumbnail?: string } | undefined;
}

interface VsCode {
  postMessage(message: ToHost): void;
  getState(): Kept | undefined;
  setState(state: Kept): void;
}

declare function acquireVsCodeApi(): VsCode;

const vscode = acquireVsCodeApi();

export function send(message: ToHost): void {
  vscode.postMessage(message);
}

export function kept(): Kept {
  return vscode.getState() ?? {};
}

export function keep(changes: Kept): void {
  vscode.setState({ ...kept(), ...changes });
}
