// The statistics: what was shown and taken on this machine.

import { window } from 'vscode';

import type { Gemma } from '../gemma';
import { detail, headline } from './statisticsText';

export async function showStatistics(gemma: Gemma): Promise<void> {
  const statistics = await gemma.request('gemma/statistics', {});
  const reset = 'Reset Statistics';
  const options = { modal: true, detail: detail(statistics) };
  const answer = await window.showInformationMessage(headline(statistics), options, reset);
  if (answer === reset) {
    await gemma.request('gemma/statistics', { reset: true });
  }
}
