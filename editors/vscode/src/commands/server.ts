// What the user is told when there is no server, and how to see that there is one.

import { commands, ConfigurationTarget, Selection, window, workspace } from 'vscode';

import type { Status } from '../gemma';
import type { Supervisor } from '../server/supervisor';
import { look } from '../status/look';

const AGAIN = 'Try Again';
const CHOOSE = 'Choose the Program...';
const LOG = 'Open Log';
const RESTART = 'Restart';

/** Says that there is no server and will be none without the user's help. */
export async function tellTrouble(supervisor: Supervisor, status: Status): Promise<void> {
  if (status.state === 'missing') {
    const answer = await window.showErrorMessage(
      `${status.message} Install it with "cargo install --locked --path server" from its source folder, or choose the program.`,
      CHOOSE,
      AGAIN,
    );
    if (answer === CHOOSE) {
      await choose();
    } else if (answer === AGAIN) {
      await supervisor.restart();
    }
  } else if (status.state === 'stopped') {
    const answer = await window.showErrorMessage(status.message, RESTART, LOG);
    if (answer === RESTART) {
      await supervisor.restart();
    } else if (answer === LOG) {
      supervisor.log.show();
    }
  }
}

/** Says which server runs, else what keeps it from running. */
export async function checkServer(supervisor: Supervisor): Promise<void> {
  const { status, description } = supervisor;
  if (status.state === 'missing' || status.state === 'stopped') {
    return tellTrouble(supervisor, status);
  }
  const answer = await window.showInformationMessage(`${description ?? 'gemma-ls'}. ${look(status, undefined).tooltip}`, LOG);
  if (answer === LOG) {
    supervisor.log.show();
  }
}

async function choose(): Promise<void> {
  const [chosen] = (await window.showOpenDialog({ title: 'The program gemma-ls', openLabel: 'Use This Program' })) ?? [];
  if (chosen !== undefined) {
    // The server is started anew because of the setting's change.
    await workspace.getConfiguration('gemma.server').update('path', chosen.fsPath, ConfigurationTarget.Global);
  }
}

export async function openSettings(extensionId: string): Promise<void> {
  await commands.executeCommand('workbench.action.openSettings', `@ext:${extensionId}`);
}

export async function openWalkthrough(extensionId: string): Promise<void> {
  await commands.executeCommand('workbench.action.openWalkthrough', `${extensionId}#firstSteps`, false);
}

/** Opens a new file with a beginning that asks to be gone on with. */
export async function tryCompletion(): Promise<void> {
  const content = 'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n    ';
  const document = await workspace.openTextDocument({ language: 'python', content });
  const editor = await window.showTextDocument(document);
  const end = document.positionAt(content.length);
  editor.selection = new Selection(end, end);
  await commands.executeCommand('editor.action.inlineSuggest.trigger');
}
