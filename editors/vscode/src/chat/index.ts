// The chat: puts its parts together, and says what the rest of the extension may ask of it.

import { commands, window, type ExtensionContext } from 'vscode';

import type { Gemma } from '../gemma';
import type { Question } from '../protocol';
import { Changes } from './changes';
import { Chat } from './chat';
import { registerCommands } from './commands';
import { Desk } from './desk';
import { registerParticipant } from './participant';
import { PictureBox } from './picturebox';
import { registerProvider } from './provider';
import { Shelf } from './shelf';
import { SubjectInUse } from './subject';
import { ChatView, VIEW } from './view';

export interface ChatApi {
  /** Opens the chat and asks. Without parameters it is opened only. */
  ask(question?: Question): Promise<void>;
}

export function activateChat(context: ExtensionContext, gemma: Gemma): ChatApi {
  const pictures = new PictureBox();
  const chat = new Chat(gemma, new Shelf(context.workspaceState), pictures);
  const subject = new SubjectInUse();
  const changes = new Changes();
  const view = new ChatView(context.extensionUri, (message) => void desk.do(message));
  const desk: Desk = new Desk(chat, subject, pictures, changes, (message) => view.say(message));
  context.subscriptions.push(
    chat,
    subject,
    changes,
    chat.onDidSay((message) => view.say(message)),
    subject.onDidChange((now) => view.say({ type: 'subject', subject: now })),
    window.registerWebviewViewProvider(VIEW, view),
    registerCommands({ chat, desk, view, subject, changes }),
  );
  withoutFail(gemma, 'the participant', () => context.subscriptions.push(registerParticipant(gemma)));
  const { version } = context.extension.packageJSON as { version: string };
  withoutFail(gemma, 'the language model', () => context.subscriptions.push(registerProvider(gemma, version)));
  return { ask: async (question) => commands.executeCommand('gemma.ask', question) };
}

/** What only some editors offer must not keep the rest from working. */
function withoutFail(gemma: Gemma, what: string, register: () => void): void {
  try {
    register();
  } catch (error) {
    gemma.log.warn(`VS Code's own chat does without ${what}: ${String(error)}`);
  }
}
