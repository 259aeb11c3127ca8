// The picture that the next question is about: read, checked, shown small, removable.

import { LARGEST_PICTURE, pictureType, refusal } from '../src/chat/pictures';
import { iconButton, make } from './dom';
import { keep, kept, send } from './host';

type Picture = NonNullable<ReturnType<typeof kept>['picture']>;

const THUMBNAIL = 240;

export class Attachment {
  readonly element = make('div', { class: 'attachment' });
  private picture: Picture | undefined;

  constructor(
    private readonly note: (text: string) => void,
    private readonly onChange: () => void,
    private readonly onRemoved: () => void,
  ) {
    this.set(kept().picture);
  }

  get current(): Picture | undefined {
    return this.picture;
  }

  /** A pasted or dropped file; says in the view why one cannot be taken. */
  async add(file: File): Promise<void> {
    const name = file.name || 'Screenshot';
    if (file.size > LARGEST_PICTURE) {
      this.note(refusal(name, new Uint8Array(LARGEST_PICTURE + 1)) ?? '');
      return;
    }
    const bytes = new Uint8Array(await file.arrayBuffer());
    const refused = refusal(name, bytes);
    if (refused) {
      this.note(refused);
      return;
    }
    const id = crypto.randomUUID();
    const thumbnail = await small(bytes);
    send({ type: 'attach', id, name, bytes, ...(thumbnail && { thumbnail }) });
    this.note('');
    this.set({ id, name, ...(thumbnail && { thumbnail }) });
  }

  /** The next question is no longer about a picture; gives the one that it was about. */
  take(): Picture | undefined {
    const { picture } = this;
    this.set(undefined);
    return picture;
  }

  set(picture: Picture | undefined): void {
    this.picture = picture;
    keep({ picture });
    this.element.hidden = !picture;
    this.element.replaceChildren();
    if (picture) {
      const { name, thumbnail } = picture;
      if (thumbnail) {
        this.element.append(make('img', { src: thumbnail, alt: `Picture ${name}` }));
      }
      this.element.append(
        make('span', { class: 'name' }, name),
        iconButton('close', `Remove ${name}`, () => {
          this.set(undefined);
          this.onRemoved();
        }),
      );
    }
    this.onChange();
  }
}

/** A small copy as a `data:` address; nothing where the picture cannot be read. */
export async function small(bytes: Uint8Array): Promise<string | undefined> {
  const type = pictureType(bytes);
  if (!type) {
    return undefined;
  }
  try {
    const whole = await createImageBitmap(new Blob([new Uint8Array(bytes)], { type }));
    const scale = Math.min(1, THUMBNAIL / Math.max(whole.width, whole.height));
    const canvas = make('canvas');
    canvas.width = Math.max(1, Math.round(whole.width * scale));
    canvas.height = Math.max(1, Math.round(whole.height * scale));
    canvas.getContext('2d')?.drawImage(whole, 0, 0, canvas.width, canvas.height);
    whole.close();
    return canvas.toDataURL('image/webp', 0.8);
  } catch {
    return undefined;
  }
}
