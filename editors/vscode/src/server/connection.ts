// The conversation with one server process, by way of VS Code's language client.
//
// This is the only file that needs the language client at run time. It is imported when the first server
// starts, so that VS Code's own start does not wait for it.

import { randomUUID } from 'node:crypto';

import { CancellationError, type Disposable, type LogOutputChannel } from 'vscode';
import {
  CloseAction,
  ErrorAction,
  LanguageClient,
  type LanguageClientOptions,
  type Middleware,
  LSPErrorCodes,
  ErrorCodes,
  ProgressType,
  ResponseError,
  RevealOutputChannelOn,
  State,
  type StaticFeature,
} from 'vscode-languageclient/node';

import { type RequestOptions, ServerError } from '../gemma';
import type {
  ChatProgress,
  Cost,
  DidChangeStatus,
  Notifications,
  Requests,
  ServerAbilities,
  WorkDone,
} from '../protocol';
import { DOCUMENTS } from './documents';
import type { ServerProcess } from './process';

/** What a request is answered with when there is nobody left to answer it. */
const GONE: ReadonlySet<number> = new Set([
  ErrorCodes.PendingResponseRejected,
  ErrorCodes.ConnectionInactive,
  ErrorCodes.MessageWriteError,
]);

/** What the conversation needs of the rest of the extension. */
export interface Surroundings {
  readonly log: LogOutputChannel;
  readonly completions: NonNullable<Middleware['provideInlineCompletionItems']>;
  settings(): Record<string, unknown>;
  onStatus(status: DidChangeStatus): void;
  onCost(cost: Cost): void;
  /** The conversation broke off: the server is gone, or says what nobody can read. */
  onBroken(): void;
}

export class Connection {
  private constructor(private readonly client: LanguageClient) {}

  /** Nothing where the server ended before it answered. Rejects where it does not answer as one should. */
  static async open(server: ServerProcess, surroundings: Surroundings): Promise<Connection | undefined> {
    const client = new QuietClient(
      'gemma',
      'Gemma',
      () => Promise.resolve({ process: server.child, detached: true }),
      options(surroundings),
    );
    client.registerFeature(OUR_CAPABILITIES);
    client.onNotification('gemma/didChangeStatus', (status: DidChangeStatus) => surroundings.onStatus(status));
    // The server writes the same to its standard error, which is in the log already.
    client.onNotification('window/logMessage', () => {});
    try {
      await client.start();
    } catch (error) {
      if (error instanceof ResponseError && GONE.has(error.code)) {
        return undefined;
      }
      throw error;
    }
    return new Connection(client);
  }

  get version(): string {
    return this.client.initializeResult?.serverInfo?.version ?? 'of an unknown version';
  }

  async request<M extends keyof Requests>(
    method: M,
    params: Requests[M]['params'],
    { token, stop, onPartial, onWorkDone }: RequestOptions,
  ): Promise<Requests[M]['answer']> {
    const message: Record<string, unknown> = { ...params };
    const listening: Disposable[] = [];
    if (onPartial !== undefined) {
      const partialResultToken = randomUUID();
      message['partialResultToken'] = partialResultToken;
      listening.push(this.client.onProgress(new ProgressType<ChatProgress>(), partialResultToken, onPartial));
    }
    if (onWorkDone !== undefined || stop !== undefined) {
      const workDoneToken = randomUUID();
      message['workDoneToken'] = workDoneToken;
      listening.push(
        this.client.onProgress(new ProgressType<WorkDone>(), workDoneToken, (value) => onWorkDone?.(value)),
      );
      if (stop !== undefined) {
        const cancel = () => this.tell('window/workDoneProgress/cancel', { token: workDoneToken });
        listening.push(stop.onCancellationRequested(cancel));
      }
    }
    try {
      // An undefined token would be sent as a second parameter.
      return await this.client.sendRequest<Requests[M]['answer']>(method, message, ...(token ? [token] : []));
    } catch (error) {
      throw token?.isCancellationRequested === true ? new CancellationError() : this.explained(error);
    } finally {
      for (const listener of listening) {
        listener.dispose();
      }
    }
  }

  notify<M extends keyof Notifications>(method: M, params: Notifications[M]): void {
    // An older server would log that it does not know what this is.
    if (method !== 'gemma/didMoveCursor' || this.abilities.didMoveCursor === true) {
      this.tell(method, params);
    }
  }

  private get abilities(): ServerAbilities {
    const experimental: { gemma?: ServerAbilities } | undefined = this.client.initializeResult?.capabilities.experimental;
    return experimental?.gemma ?? {};
  }

  /** Says goodbye. A server that does not answer is left to whoever ends its process. */
  async close(): Promise<void> {
    if (this.client.state === State.Running) {
      await this.client.stop().catch(() => {});
    }
  }

  private tell(method: string, params: object): void {
    if (this.client.state === State.Running) {
      this.client.sendNotification(method, params).catch(() => {});
    }
  }

  private explained(error: unknown): Error {
    if (!(error instanceof ResponseError)) {
      return error instanceof Error ? error : new ServerError(String(error));
    }
    if (GONE.has(error.code)) {
      return new ServerError('gemma-ls stopped before it had answered. It is started again; please try once more.');
    }
    switch (error.code) {
      case LSPErrorCodes.RequestCancelled:
      case LSPErrorCodes.ServerCancelled:
        return new CancellationError();
      case ErrorCodes.MethodNotFound:
        return new ServerError(`gemma-ls ${this.version} cannot do this yet. A newer one can.`, error.code);
      default:
        return new ServerError(error.message, error.code);
    }
  }
}

/** What the client logs stays in the log: the status bar and our own messages tell of trouble. */
class QuietClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data instanceof Error ? data.message : data, false);
  }
}

const OUR_CAPABILITIES: StaticFeature = {
  fillClientCapabilities(capabilities) {
    capabilities.experimental = { ...capabilities.experimental, gemma: { status: true, commands: true } };
    // Loading is told in the status bar item; a second notice beside it would only repeat it.
    capabilities.window = { ...capabilities.window, workDoneProgress: false };
  },
  preInitialize(capabilities) {
    // The suggestion would stand in the menu too, besides the grey text, and be computed twice.
    delete capabilities.completionProvider;
  },
  initialize() {},
  getState: () => ({ kind: 'static' }),
  clear() {},
};

function options(surroundings: Surroundings): LanguageClientOptions {
  return {
    documentSelector: DOCUMENTS,
    outputChannel: surroundings.log,
    revealOutputChannelOn: RevealOutputChannelOn.Never,
    // The process logs for itself, line by line with its levels.
    stdioOptions: { stderr: () => {}, stdout: () => {} },
    initializationFailedHandler: () => false,
    errorHandler: {
      error: () => ({ action: ErrorAction.Continue, handled: true }),
      closed: () => {
        surroundings.onBroken();
        return { action: CloseAction.DoNotRestart, handled: true, message: 'The connection with gemma-ls is closed.' };
      },
    },
    middleware: {
      provideInlineCompletionItems: surroundings.completions,
      // The client makes VS Code's own items of an answer, and drops what else is in it.
      sendRequest: async (type, params, token, next) => {
        const result = await next(type, params, token);
        const cost = (result as { gemma?: Cost | null } | null | undefined)?.gemma;
        if ((typeof type === 'string' ? type : type.method) === 'textDocument/inlineCompletion' && cost) {
          surroundings.onCost(cost);
        }
        return result;
      },
      workspace: {
        configuration: (params, token, next) =>
          params.items.some((item) => item.section !== 'gemma')
            ? next(params, token)
            : params.items.map(() => surroundings.settings()),
        // Without a section nothing is sent but that something changed: the server then asks for its settings.
        didChangeConfiguration: (_sections, next) => next(undefined),
      },
    },
  };
}
