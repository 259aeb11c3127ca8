// The bytes of pictures that were asked about, while the window lives. They are not written to disk.

import { Uri, workspace } from 'vscode';

import type { ExplainImageParams } from '../protocol';
import type { Picture } from './model';
import { nameOf } from './places';
import { LARGEST_PICTURE, refusal } from './pictures';

const MOST = 8;

export class PictureBox {
  private readonly kept = new Map<string, { picture: Picture; bytes: Uint8Array }>();

  put(picture: Picture, bytes: Uint8Array): void {
    this.kept.set(picture.id, { picture, bytes });
    const [oldest] = this.kept.keys();
    if (this.kept.size > MOST && oldest !== undefined) {
      this.kept.delete(oldest);
    }
  }

  find(id: string): Picture | undefined {
    return this.kept.get(id)?.picture;
  }

  setThumbnail(id: string, thumbnail: string): void {
    const entry = this.kept.get(id);
    if (entry) {
      this.kept.set(id, { ...entry, picture: { ...entry.picture, thumbnail } });
    }
  }

  /** Reads a file; throws sentences for the user where it cannot be asked about. */
  async read(uri: Uri): Promise<{ picture: Picture; bytes: Uint8Array }> {
    const name = nameOf(uri);
    const { size } = await workspace.fs.stat(uri);
    if (size > LARGEST_PICTURE) {
      throw new Error(refusal(name, new Uint8Array(LARGEST_PICTURE + 1)));
    }
    // What is read may be a Node buffer, which does not reach a webview as bytes.
    const bytes = new Uint8Array(await workspace.fs.readFile(uri));
    const refused = refusal(name, bytes);
    if (refused) {
      throw new Error(refused);
    }
    const picture: Picture = { id: crypto.randomUUID(), name, uri: uri.toString() };
    this.put(picture, bytes);
    return { picture, bytes };
  }

  /** How the server is told of a picture; nothing where its bytes are gone. */
  source(picture: Picture): Pick<ExplainImageParams, 'uri' | 'data' | 'name'> | undefined {
    const { name, uri } = picture;
    if (uri && Uri.parse(uri).scheme === 'file') {
      return { uri, name };
    }
    const bytes = this.kept.get(picture.id)?.bytes;
    return bytes && { data: Buffer.from(bytes).toString('base64'), name };
  }
}
