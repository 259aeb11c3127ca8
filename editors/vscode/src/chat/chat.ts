// The conversation that is open: asks the server, advances the answer, keeps both.

import { CancellationError, CancellationTokenSource, commands, EventEmitter, type Disposable } from 'vscode';

import type { Gemma } from '../gemma';
import type { ChatAnswer, ExplainImageAnswer, Question } from '../protocol';
import type { ToView } from './messages';
import {
  advance,
  EMPTY_ANSWER,
  historyOf,
  wording,
  withoutTurn,
  withTurn,
  type About,
  type AnswerEvent,
  type Conversation,
  type Picture,
  type Turn,
} from './model';
import type { PictureBox } from './picturebox';
import type { Entry, Shelf } from './shelf';

export interface Asking {
  readonly request: Question;
  readonly about?: About;
  readonly picture?: Picture;
}

interface Running {
  readonly turn: string;
  /** Asks for what there is by now. */
  readonly stop: CancellationTokenSource;
  /** Waits for nothing any more. */
  readonly abandon: CancellationTokenSource;
}

export class Chat implements Disposable {
  private readonly said = new EventEmitter<ToView>();
  /** What a view that is open has to be told. */
  readonly onDidSay = this.said.event;
  private conversation: Conversation = empty();
  private running: Running | undefined;

  constructor(
    private readonly gemma: Gemma,
    private readonly shelf: Shelf,
    private readonly pictures: PictureBox,
  ) {
    this.conversation = shelf.newest() ?? empty();
  }

  get current(): Conversation {
    return this.conversation;
  }

  async ask({ request, about, picture }: Asking): Promise<void> {
    this.abandon();
    const asked = picture ? request.question || `Explain the picture ${picture.name}` : wording(request, about);
    const turn: Turn = {
      id: crypto.randomUUID(),
      asked,
      request,
      answer: EMPTY_ANSWER,
      ...(about && !picture && { about }),
      ...(picture && { picture }),
    };
    await this.run(turn);
  }

  /** The last question is asked in its place; an earlier one once more at the end. */
  async retry(id: string): Promise<void> {
    this.abandon();
    const turn = this.find(id);
    if (!turn) {
      return;
    }
    if (turn.id !== this.conversation.turns.at(-1)?.id) {
      await this.ask(turn);
      return;
    }
    // Without this the server would remember the question twice. It takes messages in their order.
    void this.forget(this.conversation.id);
    await this.run({ ...turn, answer: EMPTY_ANSWER });
  }

  /** Ends the answer with what there is of it; the second time, without waiting for the server. */
  stop(): void {
    if (this.running?.stop.token.isCancellationRequested) {
      this.abandon();
    } else {
      this.running?.stop.cancel();
    }
  }

  begin(): void {
    this.abandon();
    this.show(empty());
  }

  open(id: string): void {
    this.abandon();
    const conversation = this.shelf.find(id);
    if (conversation) {
      this.show(conversation);
    }
  }

  async remove(id: string): Promise<void> {
    if (this.conversation.id === id) {
      this.begin();
    }
    await this.shelf.remove(id);
    this.tellQuestions();
    await this.forget(id);
  }

  entries(): Entry[] {
    return this.shelf.entries();
  }

  questions(): string[] {
    return this.shelf.questions();
  }

  find(id: string): Turn | undefined {
    return this.conversation.turns.find((turn) => turn.id === id);
  }

  setThumbnail(picture: string, thumbnail: string): void {
    this.pictures.setThumbnail(picture, thumbnail);
    const turn = this.conversation.turns.find((one) => one.picture?.id === picture);
    if (turn?.picture) {
      this.put({ ...turn, picture: { ...turn.picture, thumbnail } });
    }
  }

  dispose(): void {
    this.running?.abandon.cancel();
    this.said.dispose();
  }

  private show(conversation: Conversation): void {
    this.conversation = conversation;
    this.said.fire({ type: 'show', conversation });
  }

  private async run(turn: Turn): Promise<void> {
    const before = withoutTurn(this.conversation, turn.id);
    const running = {
      turn: turn.id,
      stop: new CancellationTokenSource(),
      abandon: new CancellationTokenSource(),
    };
    this.running = running;
    this.put(turn);
    this.said.fire({ type: 'turn', turn });
    this.showBusy();
    this.keep();
    this.tellQuestions();
    const end = await this.answerTo(turn, before, running);
    if (this.running === running) {
      this.end(end);
    }
  }

  private abandon(): void {
    this.running?.abandon.cancel();
    this.end({ kind: 'stopped' });
  }

  private end(event: AnswerEvent): void {
    if (!this.running) {
      return;
    }
    this.advance(this.running.turn, event);
    this.running.stop.dispose();
    this.running.abandon.dispose();
    this.running = undefined;
    this.showBusy();
    this.keep();
  }

  private async answerTo(turn: Turn, before: Conversation, running: Running): Promise<AnswerEvent> {
    const { stop, abandon } = running;
    const onPartial = (event: AnswerEvent): void => {
      if (this.running === running) {
        this.advance(turn.id, event);
      }
    };
    try {
      const options = { stop: stop.token, token: abandon.token, onPartial };
      const answer = await (turn.picture
        ? this.explain(before.id, turn.picture, turn.request.question, options)
        : this.gemma.request(
            'gemma/chat',
            { ...turn.request, chatId: before.id, history: historyOf(before.turns) },
            options,
          ));
      return { kind: 'done', answer };
    } catch (error) {
      if (error instanceof CancellationError) {
        return { kind: 'stopped' };
      }
      return { kind: 'failed', message: error instanceof Error ? error.message : String(error) };
    }
  }

  private explain(
    chatId: string,
    picture: Picture,
    question: string | undefined,
    options: Parameters<Gemma['request']>[2],
  ): Promise<ChatAnswer | ExplainImageAnswer> {
    const source = this.pictures.source(picture);
    if (!source) {
      throw new Error(`The picture ${picture.name} is no longer at hand. Add it again, and ask again.`);
    }
    const params = { ...source, chatId, ...(question && { question }) };
    return this.gemma.request('gemma/explainImage', params, options);
  }

  private advance(id: string, event: AnswerEvent): void {
    const turn = this.find(id);
    if (turn?.answer.state !== 'running') {
      return;
    }
    this.put({ ...turn, answer: advance(turn.answer, event) });
    this.said.fire({ type: 'answer', turn: id, event });
  }

  private put(turn: Turn): void {
    this.conversation = withTurn(this.conversation, turn, Date.now());
  }

  private async forget(chatId: string): Promise<void> {
    try {
      await this.gemma.request('gemma/forgetChat', { chatId });
    } catch (error) {
      // A server that is gone remembers nothing either.
      this.gemma.log.debug(`The server could not forget a chat: ${String(error)}`);
    }
  }

  private keep(): void {
    this.shelf.save(this.conversation).then(undefined, (error: unknown) => {
      this.gemma.log.error(`The chat could not be kept: ${String(error)}`);
    });
  }

  private tellQuestions(): void {
    this.said.fire({ type: 'asked', questions: this.shelf.questions() });
  }

  private showBusy(): void {
    void commands.executeCommand('setContext', 'gemma.chat.busy', this.running !== undefined);
  }
}

function empty(): Conversation {
  const now = Date.now();
  return { id: crypto.randomUUID(), created: now, updated: now, turns: [] };
}
