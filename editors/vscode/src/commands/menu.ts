// The menu of the status bar item.

import { commands, languages, type QuickPickItem, QuickPickItemKind, window } from 'vscode';

import type { Gemma } from '../gemma';
import type { StatusAnswer } from '../protocol';
import { DOCUMENTS } from '../server/documents';
import { look } from '../status/look';

interface MenuItem extends QuickPickItem {
  readonly command?: string;
}

export async function showMenu(gemma: Gemma): Promise<void> {
  const items = isThere(gemma) ? gemma.request('gemma/status', about()).then(whole) : short();
  const picked = await window.showQuickPick(items, {
    title: `Gemma. ${look(gemma.status, undefined).tooltip}`,
    placeHolder: 'What to do',
  });
  if (picked?.command !== undefined) {
    await commands.executeCommand(picked.command);
  }
}

/** What can be done while there is a server. */
function whole(status: StatusAnswer): MenuItem[] {
  const { document, settings, model } = status;
  const manual = settings['trigger'] === 'manual';
  const sentence = document?.sentence ?? status.completions.last?.sentence;
  return [
    heading('Completion'),
    item('$(question) Why was nothing shown?', 'gemma.explainNothing', sentence),
    ...languageItem(document?.off === 'languagesOff'),
    manual
      ? item('$(play) Complete automatically', 'gemma.toggleTrigger', 'now only when you ask')
      : item('$(debug-pause) Complete only when asked', 'gemma.toggleTrigger', 'now automatically'),
    heading('Model'),
    item('$(symbol-class) Switch model...', 'gemma.selectModel', model.name),
    item('$(cloud-download) Download a model...', 'gemma.downloadModel'),
    item('$(chip) Switch device...', 'gemma.selectDevice', model.device),
    heading('Chat'),
    item('$(comment-discussion) Open the chat', 'gemma.chat.focus'),
    heading('Server'),
    item('$(graph) Statistics', 'gemma.showStatistics'),
    ...aboutServer(),
  ];
}

/** What can be done without a server. */
function short(): MenuItem[] {
  return [item('$(search) Check the server', 'gemma.checkServer'), ...aboutServer()];
}

function aboutServer(): MenuItem[] {
  return [
    item('$(debug-restart) Restart the server', 'gemma.restartServer'),
    item('$(output) Open the log', 'gemma.showLog'),
    item('$(settings-gear) Open the settings', 'gemma.openSettings'),
    item('$(mortar-board) First steps', 'gemma.openWalkthrough'),
  ];
}

function languageItem(off: boolean): MenuItem[] {
  const document = window.activeTextEditor?.document;
  if (document === undefined || languages.match(DOCUMENTS, document) === 0) {
    return [];
  }
  const language = document.languageId;
  return [
    off
      ? item(`$(circle-large) Turn on for ${language}`, 'gemma.toggleLanguage', 'now off')
      : item(`$(circle-slash) Turn off for ${language}`, 'gemma.toggleLanguage', 'now on'),
  ];
}

function about(): { textDocument?: { uri: string } } {
  const uri = window.activeTextEditor?.document.uri.toString();
  return uri === undefined ? {} : { textDocument: { uri } };
}

function isThere(gemma: Gemma): boolean {
  return !['missing', 'stopped', 'restarting', 'starting'].includes(gemma.status.state);
}

function heading(label: string): MenuItem {
  return { label, kind: QuickPickItemKind.Separator };
}

function item(label: string, command: string, description?: string | null): MenuItem {
  return { label, command, description: description ?? '' };
}
