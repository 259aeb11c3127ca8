// A question and its answer on the page.

import { advance, type Answer, type AnswerEvent, type Turn } from '../src/chat/model';
import { confirm, icon, iconButton, make, textButton, type Child } from './dom';
import { send } from './host';
import { Prose } from './prose';
import { contextWords, droppedWords, endWords } from './words';

export class TurnView {
  readonly element: HTMLElement;
  private turn: Turn;
  private prose: Prose;
  /** What the page shows: a part that stays the same is left alone, and with it the focus. */
  private shown: Answer | undefined;
  private readonly question = make('div', { class: 'question' });
  private readonly context = make('div', { class: 'context' });
  private readonly step = make('div', { class: 'step' });
  private readonly body = make('div', { class: 'body' });
  private readonly notices = make('ul', { class: 'notices', 'aria-label': 'Notices' });
  private readonly failure = make('div', { class: 'failure' });
  private readonly end = make('div', { class: 'end' });

  constructor(turn: Turn, number: number) {
    this.turn = turn;
    this.prose = new Prose(turn.id);
    this.element = make(
      'article',
      { class: 'turn', 'aria-label': `Question ${number}` },
      this.question,
      make('h2', { class: 'hidden' }, 'Answer'),
      this.context,
      this.body,
      this.step,
      this.notices,
      this.failure,
      this.end,
    );
    this.show(turn);
  }

  get words(): string {
    return this.prose.words;
  }

  get current(): Turn {
    return this.turn;
  }

  /** The turn as a whole: when it begins, and when it is asked again. */
  show(turn: Turn): void {
    this.turn = turn;
    this.prose = new Prose(turn.id);
    this.shown = undefined;
    this.body.replaceChildren(this.prose.element);
    this.showQuestion();
    this.showAnswer();
  }

  advance(event: AnswerEvent): void {
    this.turn = { ...this.turn, answer: advance(this.turn.answer, event) };
  }

  /** What a picture looks like is known a little later than that it was asked about. */
  setThumbnail(picture: string, thumbnail: string): void {
    if (this.turn.picture?.id !== picture) {
      return;
    }
    this.turn = { ...this.turn, picture: { ...this.turn.picture, thumbnail } };
    this.showQuestion();
  }

  /** Brings the page up to the answer as it is. */
  showAnswer(): void {
    const { answer } = this.turn;
    const running = answer.state === 'running';
    this.element.setAttribute('aria-busy', String(running));
    if (running) {
      this.prose.grow(answer.text);
    } else {
      this.prose.finish(answer);
    }
    const { shown } = this;
    this.shown = answer;
    this.step.hidden = !running || answer.text !== '';
    if (answer.step !== shown?.step || !shown) {
      this.step.textContent = answer.step ?? 'Thinking';
    }
    if (answer.context !== shown?.context || !shown) {
      this.showContext(answer);
    }
    if (answer.state !== shown?.state) {
      this.notices.replaceChildren(...answer.notices.map((notice) => make('li', {}, ...withCode(notice))));
      this.notices.hidden = answer.notices.length === 0;
      this.showFailure(answer);
      this.showEnd(answer);
    }
  }

  private showQuestion(): void {
    const { asked, picture } = this.turn;
    this.question.replaceChildren(make('h2', { class: 'hidden' }, 'You asked'));
    if (picture?.thumbnail) {
      this.question.append(make('img', { src: picture.thumbnail, alt: `Picture ${picture.name}`, class: 'picture' }));
    } else if (picture) {
      this.question.append(make('div', { class: 'picture-name' }, icon('picture'), picture.name));
    }
    this.question.append(make('p', {}, asked));
  }

  private showContext({ context }: Answer): void {
    this.context.hidden = !context;
    if (!context) {
      return;
    }
    const words = contextWords(context);
    const line = context.uri
      ? make('button', { type: 'button', class: 'context-line', title: 'Show in the editor' }, icon('file'), words)
      : make('span', { class: 'context-line' }, words);
    line.addEventListener('click', () => context.uri && send({ type: 'openContext', turn: this.turn.id }));
    const dropped = droppedWords(context);
    this.context.replaceChildren(line);
    if (dropped) {
      this.context.append(make('div', { class: 'dropped' }, dropped));
    }
  }

  private showFailure({ failure }: Answer): void {
    this.failure.hidden = !failure;
    if (!failure) {
      return;
    }
    const retry = textButton('Retry', () => send({ type: 'retry', turn: this.turn.id }), 'primary');
    this.failure.replaceChildren(make('p', {}, failure), retry);
  }

  private showEnd(answer: Answer): void {
    this.end.hidden = answer.state === 'running' || answer.state === 'failed';
    if (this.end.hidden) {
      return;
    }
    const tools = make('span', { class: 'tools' });
    if (answer.text) {
      const copy = iconButton('copy', 'Copy Answer', () => {
        send({ type: 'copy', text: answer.text });
        confirm(copy, 'Copied');
      });
      tools.append(copy);
    }
    tools.append(iconButton('retry', 'Ask Again', () => send({ type: 'retry', turn: this.turn.id })));
    this.end.replaceChildren(make('span', {}, endWords(answer)), tools);
  }
}

/** A sentence in which commands stand between backticks. */
function withCode(sentence: string): Child[] {
  return sentence.split('`').map((part, index) => (index % 2 === 1 ? make('code', {}, part) : part));
}
