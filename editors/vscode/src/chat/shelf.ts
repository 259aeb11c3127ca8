// The conversations of a workspace, kept by VS Code on this machine.

import { advance, titleOf, type Conversation } from './model';

/** The part of VS Code's `Memento` that is needed. */
export interface Store {
  get(key: string): unknown;
  update(key: string, value: unknown): PromiseLike<void>;
}

export interface Entry {
  readonly id: string;
  readonly title: string;
  readonly updated: number;
  readonly questions: number;
}

const KEY = 'gemma.chats';
const MOST = 50;

export class Shelf {
  constructor(private readonly store: Store) {}

  /** The newest first. */
  entries(): Entry[] {
    return this.all().map((conversation) => ({
      id: conversation.id,
      title: titleOf(conversation),
      updated: conversation.updated,
      questions: conversation.turns.length,
    }));
  }

  find(id: string): Conversation | undefined {
    return this.all().find((conversation) => conversation.id === id);
  }

  newest(): Conversation | undefined {
    return this.all()[0];
  }

  async save(conversation: Conversation): Promise<void> {
    if (conversation.turns.length === 0) {
      return;
    }
    const others = this.all().filter(({ id }) => id !== conversation.id);
    await this.write([conversation, ...others]);
  }

  async remove(id: string): Promise<void> {
    await this.write(this.all().filter((conversation) => conversation.id !== id));
  }

  /** What was typed in this workspace, the oldest first. */
  questions(): string[] {
    const asked = this.all()
      .toReversed()
      .flatMap(({ turns }) => turns)
      .filter(({ request }) => (request.kind ?? 'ask') === 'ask')
      .map((turn) => turn.request.question ?? '')
      .filter((question) => question !== '');
    return [...new Set(asked.toReversed())].toReversed();
  }

  private write(conversations: readonly Conversation[]): PromiseLike<void> {
    const newest = conversations.toSorted((a, b) => b.updated - a.updated).slice(0, MOST);
    return this.store.update(KEY, newest);
  }

  private all(): Conversation[] {
    const stored = this.store.get(KEY);
    return Array.isArray(stored) ? (stored as Conversation[]).map(settle) : [];
  }
}

/** A window that was closed while an answer streamed has left it unfinished. */
function settle(conversation: Conversation): Conversation {
  if (conversation.turns.every(({ answer }) => answer.state !== 'running')) {
    return conversation;
  }
  const turns = conversation.turns.map((turn) =>
    turn.answer.state === 'running' ? { ...turn, answer: advance(turn.answer, { kind: 'stopped' }) } : turn,
  );
  return { ...conversation, turns };
}
