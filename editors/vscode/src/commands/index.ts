// The commands, by name.

import { CancellationError, commands, type Disposable, type ExtensionContext, window } from 'vscode';

import type { Supervisor } from '../server/supervisor';
import type { Settings } from '../settings';
import { explainNothing } from './explain';
import { showMenu } from './menu';
import { downloadModel, selectModel } from './models';
import { checkServer, openSettings, openWalkthrough, tryCompletion } from './server';
import { showStatistics } from './statistics';
import { selectDevice, toggleLanguage, toggleTrigger } from './switches';

export function registerCommands(context: ExtensionContext, supervisor: Supervisor, settings: Settings): Disposable[] {
  const { id } = context.extension;
  const carriedOut: Record<string, () => Promise<void> | void> = {
    'gemma.showMenu': () => showMenu(supervisor),
    'gemma.selectModel': () => selectModel(supervisor, settings),
    'gemma.downloadModel': () => downloadModel(supervisor, settings),
    'gemma.selectDevice': () => selectDevice(supervisor, settings),
    'gemma.toggleLanguage': () => toggleLanguage(supervisor, settings),
    'gemma.toggleTrigger': () => toggleTrigger(supervisor, settings),
    'gemma.explainNothing': () => explainNothing(supervisor),
    'gemma.showStatistics': () => showStatistics(supervisor),
    'gemma.restartServer': () => supervisor.restart(),
    'gemma.checkServer': () => checkServer(supervisor),
    'gemma.showLog': () => supervisor.log.show(),
    'gemma.openSettings': () => openSettings(id),
    'gemma.openWalkthrough': () => openWalkthrough(id),
    'gemma.tryCompletion': () => tryCompletion(),
  };
  return Object.entries(carriedOut).map(([name, carryOut]) => commands.registerCommand(name, () => told(carryOut)));
}

/** An error here is for the user; without this, VS Code would show it with the command's name in front. */
async function told(carryOut: () => Promise<void> | void): Promise<void> {
  try {
    await carryOut();
  } catch (error) {
    if (!(error instanceof CancellationError)) {
      void window.showErrorMessage(error instanceof Error ? error.message : String(error));
    }
  }
}
