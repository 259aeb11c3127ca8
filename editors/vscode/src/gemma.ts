// What the rest of the extension knows of the language server: ask it, tell it, watch how it is.

import type { CancellationToken, Event, LogOutputChannel } from 'vscode';

import type { ChatProgress, Cost, DidChangeStatus, Notifications, Requests, WorkDone } from './protocol';

export interface Gemma {
  /** The log that people see, server and extension together. */
  readonly log: LogOutputChannel;

  /** How the server is now. */
  readonly status: Status;
  readonly onDidChangeStatus: Event<Status>;

  /** A question for a suggestion was answered, and this is what the answer cost. */
  readonly onDidComplete: Event<Cost>;

  /**
   * Asks the server. Waits for one that is starting or coming back after a crash.
   *
   * Rejects with a `ServerError`, whose message is a sentence for the user; with a
   * `CancellationError` when `token` was cancelled.
   */
  request<M extends keyof Requests>(
    method: M,
    params: Requests[M]['params'],
    options?: RequestOptions,
  ): Promise<Requests[M]['answer']>;

  /** Tells a server that runs and wants to hear of it; told to nobody where none does. */
  notify<M extends keyof Notifications>(method: M, params: Notifications[M]): void;
}

export interface RequestOptions {
  /** Stops the computing; the request then rejects with a `CancellationError`. */
  token?: CancellationToken;
  /** Asks to end early, with what there is by then as the answer (`finishReason` "cancelled"). */
  stop?: CancellationToken;
  /** Called with what streams on the request's `partialResultToken`. */
  onPartial?: (value: ChatProgress) => void;
  /** Called with what the request's `workDoneToken` brings. */
  onWorkDone?: (value: WorkDone) => void;
}

/** A server's state is told by itself; the others are what the extension knows when there is none. */
export type Status =
  | DidChangeStatus
  | { readonly state: 'starting' | 'restarting' | 'stopped' | 'missing'; readonly message: string };

/** While it is so, there is no model that could go on with what is written. */
export const NO_MODEL_YET: ReadonlySet<Status['state']> = new Set(['starting', 'restarting', 'loading']);

/** What went wrong, in a sentence for the user. */
export class ServerError extends Error {
  override readonly name = 'ServerError';

  constructor(
    message: string,
    /** The protocol's error code, where the server answered with one. */
    readonly code?: number,
  ) {
    super(message);
  }
}
