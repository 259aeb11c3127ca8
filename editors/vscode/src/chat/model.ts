// A conversation as it is kept and shown: what was asked, what was answered, and from which context.
// The extension and the view both advance an answer with the same function, so they cannot disagree.

import type {
  ChatAnswer,
  ChatProgress,
  Code,
  Context,
  ExplainImageAnswer,
  FinishReason,
  Question,
  Reference,
  Turn as Said,
} from '../protocol';

export interface Conversation {
  readonly id: string;
  readonly created: number;
  readonly updated: number;
  readonly turns: readonly Turn[];
}

export interface Turn {
  readonly id: string;
  /** The question as people read it; for a button such as Explain, a sentence that says the same. */
  readonly asked: string;
  /** What is sent, and sent again by Retry. */
  readonly request: Question;
  readonly about?: About;
  readonly picture?: Picture;
  readonly answer: Answer;
}

/** What a question is about. Lines count from 1. */
export interface About {
  readonly uri: string;
  readonly name: string;
  readonly lines?: { readonly first: number; readonly last: number };
}

export interface Picture {
  /** Names the bytes, which are kept only as long as the window lives. */
  readonly id: string;
  readonly name: string;
  readonly uri?: string;
  /** A small copy as a `data:` address, for the view and the history. */
  readonly thumbnail?: string;
}

export type AnswerState = 'running' | 'done' | 'stopped' | 'failed';

export interface Answer {
  readonly state: AnswerState;
  readonly text: string;
  /** What is being done while there is no text. */
  readonly step?: string;
  readonly context?: Context;
  readonly model?: string;
  readonly finishReason?: FinishReason;
  readonly notices: readonly string[];
  readonly code: readonly Code[];
  readonly references: readonly Reference[];
  /** What went wrong and what to do, in sentences. */
  readonly failure?: string;
}

export type AnswerEvent =
  | ChatProgress
  | { kind: 'done'; answer: ChatAnswer | ExplainImageAnswer }
  | { kind: 'stopped' }
  | { kind: 'failed'; message: string };

export const EMPTY_ANSWER: Answer = {
  state: 'running',
  text: '',
  notices: [],
  code: [],
  references: [],
};

export function advance(answer: Answer, event: AnswerEvent): Answer {
  switch (event.kind) {
    case 'context':
      return { ...answer, context: event.context };
    case 'step':
      return { ...answer, step: event.message };
    case 'text': {
      const { step: _, ...rest } = answer;
      return { ...rest, text: answer.text + event.text };
    }
    case 'stopped':
      return settled(answer, 'stopped');
    case 'failed':
      return { ...settled(answer, 'failed'), failure: event.message };
    case 'done':
      return done(answer, event.answer);
  }
}

function done(answer: Answer, from: ChatAnswer | ExplainImageAnswer): Answer {
  const context = 'context' in from ? from.context : answer.context;
  return {
    ...settled(answer, from.finishReason === 'cancelled' ? 'stopped' : 'done'),
    text: from.text,
    model: from.model,
    finishReason: from.finishReason,
    notices: from.notices,
    code: from.code,
    references: from.references,
    ...(context && { context }),
  };
}

function settled(answer: Answer, state: AnswerState): Answer {
  const { step: _, ...rest } = answer;
  return { ...rest, state };
}

/** Replaces a turn, or adds it at the end. */
export function withTurn(conversation: Conversation, turn: Turn, now: number): Conversation {
  const at = conversation.turns.findIndex(({ id }) => id === turn.id);
  const turns = at < 0 ? [...conversation.turns, turn] : conversation.turns.with(at, turn);
  return { ...conversation, turns, updated: now };
}

export function withoutTurn(conversation: Conversation, id: string): Conversation {
  return { ...conversation, turns: conversation.turns.filter((turn) => turn.id !== id) };
}

/** What a server that does not know the chat has to be told: whole exchanges only. */
export function historyOf(turns: readonly Turn[]): Said[] {
  return turns
    .filter(({ answer }) => answer.text !== '')
    .flatMap(({ asked, answer }): Said[] => [
      { role: 'user', text: asked },
      { role: 'model', text: answer.text },
    ]);
}

const TITLE_LENGTH = 60;

export function titleOf(conversation: Conversation): string {
  const first = conversation.turns[0]?.asked.replace(/\s+/g, ' ').trim();
  if (!first) {
    return 'Empty chat';
  }
  const characters = [...first];
  return characters.length <= TITLE_LENGTH
    ? first
    : `${characters
        .slice(0, TITLE_LENGTH - 1)
        .join('')
        .trimEnd()}…`;
}

const VERBS = {
  explain: 'Explain',
  document: 'Document',
  tests: 'Write tests for',
  fix: 'Find the bug in',
} as const;

/** The question as people read it, also where there is a button instead of words. */
export function wording(request: Question, about: About | undefined): string {
  const said = request.question?.trim() ?? '';
  const kind = request.kind ?? 'ask';
  if (kind === 'ask') {
    return said;
  }
  const what = request.diagnostics?.length
    ? request.diagnostics.map(({ message }) => `“${message}”`).join(', ')
    : placeOf(about);
  const words = `${VERBS[kind]} ${what}`;
  return said ? `${words}: ${said}` : words;
}

export function placeOf(about: About | undefined): string {
  if (!about) {
    return 'this';
  }
  return about.lines ? `${linesOf(about.lines)} of ${about.name}` : about.name;
}

export function linesOf({ first, last }: { first: number; last: number }): string {
  return first === last ? `line ${first}` : `lines ${first} to ${last}`;
}
