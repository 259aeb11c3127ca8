// The conversation on the page: its turns, the welcome before the first, scrolling, announcing.

import type { AnswerEvent, Conversation, Turn } from '../src/chat/model';
import type { ChatKind } from '../src/protocol';
import { make, textButton } from './dom';
import { send } from './host';
import { TurnView } from './turn';
import { endAnnouncement } from './words';

const STARTERS: readonly { kind: ChatKind; label: string }[] = [
  { kind: 'explain', label: 'Explain it' },
  { kind: 'document', label: 'Document it' },
  { kind: 'fix', label: 'Find the bug' },
  { kind: 'tests', label: 'Write tests' },
];

/** This near to the end, the view follows what is written. */
const NEAR = 40;

export class Log {
  readonly element = make('div', { class: 'log', role: 'region', 'aria-label': 'Conversation', tabindex: '0' });
  private readonly turns = new Map<string, TurnView>();
  private readonly welcome = welcome();
  private readonly waiting = new Set<TurnView>();

  constructor(
    private readonly announce: (text: string) => void,
    private readonly onBusy: (busy: boolean) => void,
  ) {
    this.element.append(this.welcome);
  }

  show(conversation: Conversation): void {
    this.turns.clear();
    this.element.replaceChildren(this.welcome);
    for (const turn of conversation.turns) {
      this.showTurn(turn);
    }
    this.element.scrollTop = this.element.scrollHeight;
    this.update();
  }

  showTurn(turn: Turn): void {
    const known = this.turns.get(turn.id);
    if (known) {
      known.show(turn);
    } else {
      const view = new TurnView(turn, this.turns.size + 1);
      this.turns.set(turn.id, view);
      this.element.append(view.element);
    }
    if (turn.answer.state === 'running') {
      this.element.scrollTop = this.element.scrollHeight;
    }
    this.update();
  }

  /** Text is put on the page once a frame, however fast it comes. */
  advance(id: string, event: AnswerEvent): void {
    const view = this.turns.get(id);
    if (!view) {
      return;
    }
    view.advance(event);
    if (event.kind === 'step') {
      this.announce(event.message);
    }
    if (view.current.answer.state !== 'running') {
      this.waiting.delete(view);
      this.following(() => view.showAnswer());
      this.announce(endAnnouncement(view.current, view.words));
      this.update();
      return;
    }
    if (this.waiting.size === 0) {
      requestAnimationFrame(() => this.showWaiting());
    }
    this.waiting.add(view);
  }

  setThumbnail(picture: string, thumbnail: string): void {
    this.following(() => {
      for (const view of this.turns.values()) {
        view.setThumbnail(picture, thumbnail);
      }
    });
  }

  private showWaiting(): void {
    this.following(() => {
      for (const view of this.waiting) {
        view.showAnswer();
      }
    });
    this.waiting.clear();
  }

  /** Stays at the end where the reader is at the end, and elsewhere leaves the page still. */
  private following(change: () => void): void {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    change();
    if (atEnd) {
      this.element.scrollTop = this.element.scrollHeight;
    }
  }

  private update(): void {
    this.welcome.hidden = this.turns.size > 0;
    this.onBusy([...this.turns.values()].some(({ current }) => current.answer.state === 'running'));
  }
}

function welcome(): HTMLElement {
  const starters = STARTERS.map(({ kind, label }) =>
    textButton(label, () => send({ type: 'ask', question: '', kind })),
  );
  return make(
    'div',
    { class: 'welcome' },
    make('h2', {}, 'Ask about your code'),
    make(
      'p',
      {},
      'The model runs on this machine. It is shown the file or the selection that is named below, and nothing leaves the machine.',
    ),
    make('div', { class: 'starters', role: 'group', 'aria-label': 'Begin with' }, ...starters),
    make('p', { class: 'hint' }, 'Paste a screenshot to have it explained, or drop one here with Shift held down.'),
  );
}
