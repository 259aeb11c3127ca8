// The framing of the language server protocol: a header with the length, then JSON.

export interface Message {
  id?: number | string | null | undefined;
  method?: string;
  params?: unknown;
  result?: unknown;
  error?: { code: number; message: string };
}

const SEPARATOR = '\r\n\r\n';

/** Cuts a stream of bytes into messages, each with the bytes that it came in. */
export class Frames {
  #pending: Buffer = Buffer.alloc(0);

  *push(bytes: Buffer): Generator<{ message: Message; bytes: Buffer }> {
    this.#pending = Buffer.concat([this.#pending, bytes]);
    for (;;) {
      const header = this.#pending.indexOf(SEPARATOR);
      if (header < 0) {
        return;
      }
      const length = /content-length: *(\d+)/i.exec(this.#pending.toString('latin1', 0, header))?.[1];
      if (length === undefined) {
        throw new Error('a header without Content-Length');
      }
      const body = header + SEPARATOR.length;
      const end = body + Number(length);
      if (this.#pending.length < end) {
        return;
      }
      const frame = this.#pending.subarray(0, end);
      this.#pending = this.#pending.subarray(end);
      yield { message: JSON.parse(frame.toString('utf8', body)) as Message, bytes: frame };
    }
  }
}

export function frame(message: Message): string {
  const body = JSON.stringify({ jsonrpc: '2.0', ...message });
  return `Content-Length: ${Buffer.byteLength(body)}${SEPARATOR}${body}`;
}
