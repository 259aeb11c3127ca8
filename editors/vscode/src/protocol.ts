// What is said to gemma-ls and what it answers, as editors/PROTOCOL.md has it. Types only.
//
// Positions are the protocol's own, counted in UTF-16, which is also how VS Code counts.

import type { Diagnostic, Position, Range } from 'vscode-languageclient';

export interface Requests {
  'gemma/chat': { params: ChatParams; answer: ChatAnswer };
  'gemma/forgetChat': { params: { chatId: string }; answer: null };
  'gemma/explainImage': { params: ExplainImageParams; answer: ExplainImageAnswer };
  'gemma/status': { params: { textDocument?: { uri: string } }; answer: StatusAnswer };
  'gemma/models': { params: Record<string, never>; answer: ModelsAnswer };
  'gemma/pullModel': { params: { name: string }; answer: { name: string; path: string } };
  'gemma/statistics': { params: { reset?: boolean }; answer: Statistics };
}

export interface Notifications {
  'gemma/didShowCompletion': { id: CompletionId };
  'gemma/didAcceptCompletion': AcceptedCompletion;
  'gemma/didMoveCursor': { textDocument: { uri: string }; position: Position };
}

/** What a server says of itself, in `initialize` under `capabilities.experimental.gemma`. */
export interface ServerAbilities {
  /** It wants to hear where the cursor came to rest. */
  didMoveCursor?: boolean;
}

export type ChatKind = 'ask' | 'explain' | 'document' | 'tests' | 'fix';

/** What `gemma.ask` brings, and `gemma/chat` takes: tokens are added where the request is sent. */
export interface Question {
  question?: string;
  kind?: ChatKind;
  textDocument?: { uri: string };
  selection?: Range;
  diagnostics?: Diagnostic[];
}

export interface Turn {
  role: 'user' | 'model';
  text: string;
}

export interface ChatParams extends Question {
  chatId: string;
  history?: Turn[];
  maxTokens?: number;
}

export type FinishReason = 'stop' | 'length' | 'deadline' | 'cancelled';

export interface ChatAnswer {
  chatId: string;
  model: string;
  text: string;
  finishReason: FinishReason;
  context: Context;
  notices: string[];
  code: Code[];
  references: Reference[];
  timings?: unknown;
}

export interface Context {
  uri?: string | null;
  path?: string | null;
  languageId?: string | null;
  version?: number | null;
  lines?: { first: number; last: number; of: number } | null;
  selection?: { first: number; last: number } | null;
  turns: number;
  promptTokens: number;
  dropped: { turns: number; lines_above: number; lines_below: number };
}

export interface Code {
  language: string;
  text: string;
  offset: number;
  length: number;
  edit?: CodeEdit | null;
}

export interface CodeEdit {
  textDocument: { uri: string; version?: number | null };
  range: Range;
  newText: string;
}

export interface Reference {
  offset: number;
  length: number;
  range: Range;
}

/** What streams while `gemma/chat` and `gemma/explainImage` are answered. */
export type ChatProgress =
  | { kind: 'context'; context: Context }
  | { kind: 'step'; message: string }
  | { kind: 'text'; text: string };

export interface ExplainImageParams {
  uri?: string;
  data?: string;
  name?: string;
  question?: string;
  chatId?: string;
}

export interface ExplainImageAnswer {
  model: string;
  chatModel?: string | null;
  text: string;
  finishReason: FinishReason;
  width: number;
  height: number;
  tiles: number;
  code: Code[];
  references: Reference[];
  notices: string[];
  timings?: unknown;
}

/** Work done, as the Language Server Protocol tells of it. */
export type WorkDone =
  | { kind: 'begin'; title: string; message?: string; percentage?: number; cancellable?: boolean }
  | { kind: 'report'; message?: string; percentage?: number }
  | { kind: 'end'; message?: string };

export interface ModelStatus {
  name?: string | null;
  state: 'loading' | 'ready' | 'failed';
  percent?: number | null;
  error?: string | null;
  device?: string | null;
  weightBytes?: number | null;
}

export interface StatusAnswer {
  version: string;
  model: ModelStatus;
  chat?: ModelStatus | null;
  pictures?: ModelStatus | null;
  completions: { last?: LastCompletion | null };
  settings: Readonly<Record<string, unknown>>;
  problems: string[];
  document?: DocumentStatus | null;
}

export interface LastCompletion {
  reason?: string | null;
  rule?: string | null;
  sentence?: string | null;
}

/** What an answer to `textDocument/inlineCompletion` cost: its member `gemma`. A number is missing where nothing was computed. */
export interface Cost {
  reason?: string | null;
  /** Of the prompt: all. */
  tokensAsked?: number | null;
  /** Those of them that were not in the cache. */
  tokensComputed?: number | null;
  firstTokenMs?: number | null;
}

export type Off = 'secretFiles' | 'languagesOff' | 'filesOff' | 'trigger';

export interface DocumentStatus {
  off?: Off | null;
  sentence?: string | null;
}

export interface ModelsAnswer {
  current?: string | null;
  models: Model[];
}

export interface Model {
  name: string;
  path?: string | null;
  bytes: number;
  source?: string | null;
  installed: boolean;
  infill: boolean;
  instructed: boolean;
  pictures: boolean;
  page?: string | null;
}

export interface Statistics {
  since: string;
  shown: number;
  accepted: number;
  words: number;
  lines: number;
  wholes: number;
  characters: number;
  timeSavedMs: number;
  languages: Record<string, { shown: number; accepted: number; characters: number }>;
}

export type CompletionId = string | number;

export interface AcceptedCompletion {
  id: CompletionId;
  kind: 'whole' | 'word' | 'line';
  text?: string;
}

/** `gemma/didChangeStatus`. */
export interface DidChangeStatus {
  state: 'loading' | 'ready' | 'working' | 'failed';
  percent?: number | null;
  model?: string | null;
  device?: string | null;
  error?: string | null;
  message: string;
}
