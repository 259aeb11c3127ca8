// What the extension and the chat view say to each other. One union for each direction.

import type { ChatKind } from '../protocol';
import type { About, AnswerEvent, Conversation, Picture, Turn } from './model';

/** From the extension to the view. */
export type ToView =
  /** Everything there is to show: after loading, and when another conversation is opened. */
  | { type: 'show'; conversation: Conversation }
  | { type: 'turn'; turn: Turn }
  | { type: 'answer'; turn: string; event: AnswerEvent }
  | { type: 'subject'; subject: Subject }
  /** Questions that were asked in this workspace, oldest first: the arrow keys bring them back. */
  | { type: 'asked'; questions: readonly string[] }
  /** Said under the composer, and to screen readers. */
  | { type: 'note'; text: string }
  /** A picture that the extension read: the view makes the small copy of it. */
  | { type: 'picture'; id: string; name: string; bytes: Uint8Array; attach: boolean }
  | { type: 'focus' };

/** What would be talked about now, and whether it is. */
export interface Subject {
  readonly about?: About;
  readonly on: boolean;
}

/** From the view to the extension. */
export type ToHost =
  | { type: 'ready' }
  | { type: 'ask'; question: string; kind: ChatKind; picture?: Picture }
  | { type: 'stop' }
  | { type: 'retry'; turn: string }
  | { type: 'talkAbout'; on: boolean }
  | { type: 'attach'; id: string; name: string; bytes: Uint8Array; thumbnail?: string }
  | { type: 'attachUri'; uri: string }
  | { type: 'pickPicture' }
  | { type: 'thumbnail'; picture: string; thumbnail: string }
  | { type: 'copy'; text: string }
  | { type: 'insert'; text: string }
  | { type: 'diff'; turn: string; code: number }
  | { type: 'reveal'; turn: string; reference: number }
  | { type: 'openContext'; turn: string }
  | { type: 'openLink'; href: string };

type Shape = 'string' | 'boolean' | 'number' | 'bytes' | 'string?' | 'kind' | 'picture?';
type Fields<M> = M extends { type: string } ? Record<Exclude<keyof M, 'type'>, Shape> : never;

const SHAPES: { [T in ToHost['type']]: Fields<Extract<ToHost, { type: T }>> } = {
  ready: {},
  ask: { question: 'string', kind: 'kind', picture: 'picture?' },
  stop: {},
  retry: { turn: 'string' },
  talkAbout: { on: 'boolean' },
  attach: { id: 'string', name: 'string', bytes: 'bytes', thumbnail: 'string?' },
  attachUri: { uri: 'string' },
  pickPicture: {},
  thumbnail: { picture: 'string', thumbnail: 'string' },
  copy: { text: 'string' },
  insert: { text: 'string' },
  diff: { turn: 'string', code: 'number' },
  reveal: { turn: 'string', reference: 'number' },
  openContext: { turn: 'string' },
  openLink: { href: 'string' },
};

const KINDS: readonly unknown[] = ['ask', 'explain', 'document', 'tests', 'fix'];

function fits(value: unknown, shape: Shape): boolean {
  switch (shape) {
    case 'bytes':
      return value instanceof Uint8Array;
    case 'kind':
      return KINDS.includes(value);
    case 'string?':
      return value === undefined || typeof value === 'string';
    case 'picture?':
      return value === undefined || isPicture(value);
    default:
      return typeof value === shape;
  }
}

function isPicture(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) {
    return false;
  }
  const { id, name, thumbnail } = value as Readonly<Record<string, unknown>>;
  return fits(id, 'string') && fits(name, 'string') && fits(thumbnail, 'string?');
}

/** A message from the view, where it is one: a webview is not trusted to send what it should. */
export function parseToHost(message: unknown): ToHost | undefined {
  if (typeof message !== 'object' || message === null) {
    return undefined;
  }
  const fields = message as Readonly<Record<string, unknown>>;
  const { type } = fields;
  if (typeof type !== 'string' || !Object.hasOwn(SHAPES, type)) {
    return undefined;
  }
  const shapes: Readonly<Record<string, Shape>> = SHAPES[type as ToHost['type']];
  const right = Object.entries(shapes).every(([name, shape]) => fits(fields[name], shape));
  return right ? (message as ToHost) : undefined;
}
