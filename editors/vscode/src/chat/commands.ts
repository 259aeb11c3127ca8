// The chat's commands, as menus, the palette and the server's code actions call them.

import { Disposable, Uri, commands, window } from 'vscode';

import type { ChatKind, CodeEdit, Question } from '../protocol';
import type { Changes } from './changes';
import type { Chat } from './chat';
import type { Desk } from './desk';
import { pickChat } from './picker';
import { editorInUse } from './places';
import { placeOfEditor, type SubjectInUse } from './subject';
import type { ChatView } from './view';

export interface Parts {
  readonly chat: Chat;
  readonly desk: Desk;
  readonly view: ChatView;
  readonly subject: SubjectInUse;
  readonly changes: Changes;
}

const ABOUT_SELECTION: Readonly<Record<string, ChatKind>> = {
  'gemma.chat.explain': 'explain',
  'gemma.chat.document': 'document',
  'gemma.chat.fix': 'fix',
  'gemma.chat.tests': 'tests',
};

export function registerCommands({ chat, desk, view, subject, changes }: Parts): Disposable {
  const aboutFile = async (): Promise<void> => {
    subject.talkAbout(true);
    await view.focus();
  };
  const aboutSelection = async (kind: ChatKind): Promise<void> => {
    const editor = editorInUse();
    if (!editor) {
      void window.showInformationMessage('Open a file first, and select what Gemma is to look at.');
      return;
    }
    await view.focus();
    await desk.ask({ kind, ...placeOfEditor(editor) });
  };
  const screenshot = async (uri: unknown): Promise<void> => {
    const picture = uri instanceof Uri ? uri : await desk.pickPicture('Explain Screenshot');
    if (!picture) {
      return;
    }
    await view.focus();
    await desk.askAboutPicture(picture);
  };
  const ask = async (question?: Question): Promise<void> => {
    await view.focus();
    if (question) {
      await desk.ask(question);
    }
  };
  const begin = async (): Promise<void> => {
    chat.begin();
    await view.focus();
  };
  const history = async (): Promise<void> => {
    if (await pickChat(chat)) {
      await view.focus();
    }
  };
  // The button of an answer in VS Code's own chat.
  const showChange = async (edit: CodeEdit): Promise<void> => {
    const problem = await changes.show(edit);
    if (problem) {
      void window.showWarningMessage(problem);
    }
  };
  const uriOnly = (value: unknown): Uri | undefined => (value instanceof Uri ? value : undefined);
  return Disposable.from(
    ...Object.entries(ABOUT_SELECTION).map(([command, kind]) =>
      commands.registerCommand(command, () => aboutSelection(kind)),
    ),
    commands.registerCommand('gemma.ask', ask),
    commands.registerCommand('gemma.chat.file', aboutFile),
    commands.registerCommand('gemma.chat.screenshot', screenshot),
    commands.registerCommand('gemma.chat.new', begin),
    commands.registerCommand('gemma.chat.history', history),
    commands.registerCommand('gemma.chat.stop', () => chat.stop()),
    commands.registerCommand('gemma.chat.showChange', showChange),
    commands.registerCommand('gemma.chat.applyEdit', (uri: unknown) => changes.apply(uriOnly(uri))),
    commands.registerCommand('gemma.chat.discardEdit', (uri: unknown) => changes.discard(uriOnly(uri))),
  );
}
