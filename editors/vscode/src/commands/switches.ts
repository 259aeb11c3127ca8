// What the menu switches: the device, completion in this language, automatic or manual.

import { window } from 'vscode';

import type { Gemma } from '../gemma';
import type { Settings } from '../settings';

export async function selectDevice(gemma: Gemma, settings: Settings): Promise<void> {
  const status = await gemma.request('gemma/status', {});
  const items = settings.choices('device').map((device) => ({
    label: `${device === status.settings['device'] ? '$(check) ' : ''}${device}`,
    description: device === 'auto' ? `the fastest one there is, now ${status.model.device ?? 'unknown'}` : '',
    device,
  }));
  const picked = await window.showQuickPick(items, { title: 'Where to compute' });
  if (picked !== undefined) {
    await settings.write('device', picked.device);
  }
}

/** Turns completion on or off for the active document's language. */
export async function toggleLanguage(gemma: Gemma, settings: Settings): Promise<void> {
  const language = window.activeTextEditor?.document.languageId;
  if (language === undefined) {
    void window.showInformationMessage('Open a file first: completion is turned on and off for its language.');
    return;
  }
  const off = await languagesOff(gemma);
  await settings.write('languagesOff', off.includes(language) ? off.filter((one) => one !== language) : [...off, language]);
}

export async function toggleTrigger(gemma: Gemma, settings: Settings): Promise<void> {
  const status = await gemma.request('gemma/status', {});
  await settings.write('trigger', status.settings['trigger'] === 'manual' ? 'automatic' : 'manual');
}

/** The languages in which nothing is completed, wherever that was set. */
async function languagesOff(gemma: Gemma): Promise<string[]> {
  const { settings } = await gemma.request('gemma/status', {});
  const off = settings['languagesOff'];
  return Array.isArray(off) ? off.filter((one) => typeof one === 'string') : [];
}
