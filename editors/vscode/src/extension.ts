// Where VS Code starts and ends the extension.

import { began } from './began';

import { commands, type ExtensionContext, window, workspace } from 'vscode';

import { activateChat } from './chat';
import { registerCommands } from './commands';
import { tellTrouble } from './commands/server';
import { Completions } from './completions';
import { CursorWatch } from './completions/cursor';
import type { Status } from './gemma';
import { Supervisor } from './server/supervisor';
import { Settings } from './settings';
import { StatusItem } from './status/item';

/** What evaluating the imports took. VS Code does other things between that and the activation. */
const imported = performance.now() - began;

let running: Supervisor | undefined;

export function activate(context: ExtensionContext): void {
  const called = performance.now();
  const log = window.createOutputChannel('Gemma', { log: true });
  const settings = new Settings(context.extension);
  const supervisor: Supervisor = new Supervisor(context, log, {
    completions: (...request) => completions.provide(...request),
    settings: () => settings.forServer(),
  });
  const completions = new Completions(supervisor);
  running = supervisor;
  context.subscriptions.push(
    log,
    completions,
    new CursorWatch(supervisor),
    supervisor,
    new StatusItem(supervisor),
    ...registerCommands(context, supervisor, settings),
    supervisor.onDidChangeStatus((status) => {
      void tellTrouble(supervisor, status);
      noteSteps(status);
    }),
    workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration('gemma.server')) {
        void supervisor.restart();
      }
    }),
  );
  activateChat(context, supervisor);
  void supervisor.start();
  log.info(`Activated in ${Math.ceil(imported + performance.now() - called)} ms.`);
}

export async function deactivate(): Promise<void> {
  await running?.end();
}

/** What the walkthrough's first two steps wait for. */
function noteSteps({ state }: Status): void {
  if (state === 'ready') {
    void commands.executeCommand('setContext', 'gemma.modelIsReady', true);
  }
  if (state === 'ready' || state === 'loading' || state === 'failed') {
    void commands.executeCommand('setContext', 'gemma.serverRuns', true);
  }
}
