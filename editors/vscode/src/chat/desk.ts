// What people do in the chat view, carried out: asking, pictures, code into the editor, places shown.

import { Position, Uri, env, window } from 'vscode';

import type { Question } from '../protocol';
import type { Changes } from './changes';
import type { Chat } from './chat';
import { atCursor } from './edits';
import type { ToHost, ToView } from './messages';
import type { PictureBox } from './picturebox';
import { aboutQuestion, editorInUse, fromProtocol, reveal } from './places';
import type { SubjectInUse } from './subject';

type Ask = Extract<ToHost, { type: 'ask' }>;

export class Desk {
  constructor(
    private readonly chat: Chat,
    private readonly subject: SubjectInUse,
    private readonly pictures: PictureBox,
    private readonly changes: Changes,
    private readonly say: (message: ToView) => void,
  ) {}

  /** Failures are told in the view, where the person who caused them looks. */
  async do(message: ToHost): Promise<void> {
    try {
      await this.carryOut(message);
    } catch (error) {
      this.note(error instanceof Error ? error.message : String(error));
    }
  }

  async ask(request: Question): Promise<void> {
    const about = aboutQuestion(request);
    await this.chat.ask({ request, ...(about && { about }) });
  }

  async askAboutPicture(uri: Uri): Promise<void> {
    try {
      const { picture, bytes } = await this.pictures.read(uri);
      const answered = this.chat.ask({ request: {}, picture });
      this.say({ type: 'picture', id: picture.id, name: picture.name, bytes, attach: false });
      await answered;
    } catch (error) {
      this.note(error instanceof Error ? error.message : String(error));
    }
  }

  async pickPicture(title: string): Promise<Uri | undefined> {
    const picked = await window.showOpenDialog({
      title,
      openLabel: 'Choose',
      filters: { Pictures: ['png', 'jpg', 'jpeg', 'webp'] },
    });
    return picked?.[0];
  }

  note(text: string): void {
    this.say({ type: 'note', text });
  }

  private async carryOut(message: ToHost): Promise<void> {
    switch (message.type) {
      case 'ready':
        this.say({ type: 'show', conversation: this.chat.current });
        this.say({ type: 'subject', subject: this.subject.current });
        this.say({ type: 'asked', questions: this.chat.questions() });
        return;
      case 'ask':
        return this.asked(message);
      case 'stop':
        return this.chat.stop();
      case 'retry':
        return this.chat.retry(message.turn);
      case 'talkAbout':
        return this.subject.talkAbout(message.on);
      case 'attach': {
        const { id, name, bytes, thumbnail } = message;
        return this.pictures.put({ id, name, ...(thumbnail && { thumbnail }) }, bytes);
      }
      case 'attachUri':
        return this.attach(Uri.parse(message.uri));
      case 'pickPicture': {
        const uri = await this.pickPicture('Add a Screenshot');
        return uri && this.attach(uri);
      }
      case 'thumbnail':
        return this.chat.setThumbnail(message.picture, message.thumbnail);
      case 'copy':
        return env.clipboard.writeText(message.text);
      case 'insert':
        return this.insert(message.text);
      case 'diff':
        return this.showChange(message.turn, message.code);
      case 'reveal':
        return this.reveal(message.turn, message.reference);
      case 'openContext':
        return this.openContext(message.turn);
      case 'openLink':
        return this.openLink(message.href);
    }
  }

  private async asked({ question, kind, picture }: Ask): Promise<void> {
    // One that the window has forgotten is asked about all the same: the answer says what to do.
    if (picture) {
      return this.chat.ask({ request: { question }, picture: this.pictures.find(picture.id) ?? picture });
    }
    const place = this.subject.place();
    if (kind !== 'ask' && !place) {
      throw new Error(
        'There is no file to talk about. Open one, or press the button with its name where it is switched off.',
      );
    }
    return this.ask({ kind, ...(question && { question }), ...place });
  }

  private async attach(uri: Uri): Promise<void> {
    const { picture, bytes } = await this.pictures.read(uri);
    this.say({ type: 'picture', id: picture.id, name: picture.name, bytes, attach: true });
  }

  private async insert(text: string): Promise<void> {
    const editor = editorInUse();
    if (!editor) {
      throw new Error('There is no editor to insert into. Open a file, and put the cursor where the code should go.');
    }
    const { active } = editor.selection;
    const before = editor.document.lineAt(active.line).text.slice(0, active.character);
    const done = await editor.edit((edit) =>
      edit.insert(new Position(active.line, active.character), atCursor(text, before)),
    );
    if (!done) {
      throw new Error('The editor did not take the code. Is its file read-only?');
    }
    await window.showTextDocument(editor.document, editor.viewColumn);
  }

  private async showChange(turn: string, code: number): Promise<void> {
    const edit = this.chat.find(turn)?.answer.code[code]?.edit;
    const problem = edit && (await this.changes.show(edit));
    if (problem) {
      this.note(problem);
    }
  }

  private async reveal(id: string, index: number): Promise<void> {
    const turn = this.chat.find(id);
    const reference = turn?.answer.references[index];
    const uri = turn?.answer.context?.uri ?? turn?.about?.uri;
    if (uri && reference) {
      await reveal(Uri.parse(uri), fromProtocol(reference.range));
    }
  }

  private async openContext(id: string): Promise<void> {
    const turn = this.chat.find(id);
    const uri = turn?.answer.context?.uri;
    if (!uri) {
      return;
    }
    const { selection } = turn.request;
    await reveal(Uri.parse(uri), selection && fromProtocol(selection));
  }

  private async openLink(href: string): Promise<void> {
    const uri = Uri.parse(href, true);
    if (uri.scheme === 'https' || uri.scheme === 'http') {
      await env.openExternal(uri);
    }
  }
}
