// Why nothing was shown.

import { window } from 'vscode';

import type { Gemma } from '../gemma';
import type { StatusAnswer } from '../protocol';

export async function explainNothing(gemma: Gemma): Promise<void> {
  const uri = window.activeTextEditor?.document.uri.toString();
  const status = await gemma.request('gemma/status', uri === undefined ? {} : { textDocument: { uri } });
  const log = 'Open Log';
  const answer = await window.showInformationMessage(sentence(status), log);
  if (answer === log) {
    gemma.log.show();
  }
}

/** What keeps a suggestion from the active document, else what became of the last request. */
function sentence({ document, completions: { last } }: StatusAnswer): string {
  return (
    document?.sentence ??
    last?.sentence ??
    'Nothing was asked for yet. Type something, or trigger an inline suggestion.'
  );
}
