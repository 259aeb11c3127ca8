// Finds out where the cursor came to rest by something other than typing: there, somebody may be about to write.
//
// Typing moves the cursor too, and the editor tells of both: of the text that changed, and of the cursor that moved.

/** How long the cursor stays where it is before that counts. */
export const REST_MS = 150;

/** The cursor's move that belongs to a change of the text is told right behind it; a busy machine takes its time. */
const TOGETHER_MS = 500;

/** A place in a document as it is at the time. */
export interface Place {
  readonly uri: string;
  readonly version: number;
  readonly line: number;
  readonly character: number;
}

export class Rest {
  private waiting: { readonly uri: string; readonly timer: NodeJS.Timeout } | undefined;
  private changed: { readonly uri: string; readonly at: number } | undefined;
  private told: Place | undefined;

  constructor(private readonly tell: (place: Place) => void) {}

  /** Notes that a document was changed: whoever types does not rest. */
  change(uri: string): void {
    this.changed = { uri, at: Date.now() };
    if (this.waiting?.uri === uri) {
      this.stop();
    }
  }

  /** Notes that the cursor was moved in the editor that is in front. */
  move(place: Place): void {
    const { changed } = this;
    this.changed = undefined;
    if (changed?.uri === place.uri && Date.now() - changed.at < TOGETHER_MS) {
      this.stop();
    } else {
      this.arrive(place);
    }
  }

  /** Notes where the cursor is: in an editor that has come to the front, or where it was put with the mouse. */
  arrive(place: Place): void {
    this.stop();
    if (isSame(place, this.told)) {
      return;
    }
    const timer = setTimeout(() => {
      this.waiting = undefined;
      this.told = place;
      this.tell(place);
    }, REST_MS);
    this.waiting = { uri: place.uri, timer };
  }

  /** Notes that there is no place to rest: nothing is in front, or something is selected. */
  stop(): void {
    clearTimeout(this.waiting?.timer);
    this.waiting = undefined;
  }

  /** Forgets what was told: whom it was told is gone. */
  forget(): void {
    this.told = undefined;
  }
}

function isSame(one: Place, other: Place | undefined): boolean {
  return (
    one.uri === other?.uri &&
    one.version === other.version &&
    one.line === other.line &&
    one.character === other.character
  );
}
