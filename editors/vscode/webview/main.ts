// The chat view: puts its parts on the page, and hands on what the extension says.

import type { ToView } from '../src/chat/messages';
import { small } from './attachment';
import { Composer } from './composer';
import { make } from './dom';
import { send } from './host';
import { Log } from './log';

const live = make('div', { class: 'hidden', role: 'status', 'aria-live': 'polite' });
const composer = new Composer();
let busy = false;
const log = new Log(
  (text) => {
    live.textContent = text;
  },
  (now) => {
    busy = now;
    composer.setBusy(now);
  },
);

document.body.append(make('main', {}, log.element, composer.element), live);

window.addEventListener('message', ({ data }: MessageEvent<ToView>) => receive(data));
window.addEventListener('focus', takeFocus);
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && busy) {
    send({ type: 'stop' });
  }
});
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('dropping');
});
document.addEventListener('dragleave', ({ relatedTarget }) => {
  if (!relatedTarget) {
    document.body.classList.remove('dropping');
  }
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dropping');
  if (event.dataTransfer) {
    dropped(event.dataTransfer);
  }
});
send({ type: 'ready' });

function receive(message: ToView): void {
  switch (message.type) {
    case 'show':
      log.show(message.conversation);
      return takeFocus();
    case 'turn':
      log.showTurn(message.turn);
      return takeFocus();
    case 'answer':
      return log.advance(message.turn, message.event);
    case 'subject':
      return composer.setSubject(message.subject);
    case 'asked':
      return composer.setQuestions(message.questions);
    case 'note':
      return composer.note(message.text);
    case 'picture':
      return void picture(message);
    case 'focus':
      return document.hasFocus() ? composer.focus() : undefined;
  }
}

/** The field has the focus where nothing else has it: at first, and when a button is gone or hidden after its click. */
function takeFocus(): void {
  const { activeElement: active, body } = document;
  if (document.hasFocus() && (active === null || active === body || !active.checkVisibility())) {
    composer.focus();
  }
}

async function picture({ id, name, bytes, attach }: Extract<ToView, { type: 'picture' }>): Promise<void> {
  const thumbnail = await small(bytes);
  if (thumbnail) {
    send({ type: 'thumbnail', picture: id, thumbnail });
  }
  if (attach) {
    composer.attachment.set({ id, name, ...(thumbnail && { thumbnail }) });
  } else if (thumbnail) {
    log.setThumbnail(id, thumbnail);
  }
  if (attach) {
    composer.focus();
  }
}

function dropped(data: DataTransfer): void {
  const file = data.files[0];
  if (file) {
    void composer.attachment.add(file);
    return;
  }
  const uris = data.getData('application/vnd.code.uri-list') || data.getData('text/uri-list');
  const uri = uris.split(/\r?\n/).find((line) => line !== '' && !line.startsWith('#'));
  if (uri) {
    send({ type: 'attachUri', uri });
  }
}
