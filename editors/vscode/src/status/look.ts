// How the status bar item looks: from what is known of the server and of the active document.

import type { Status } from '../gemma';
import type { Cost, DocumentStatus } from '../protocol';

export interface Look {
  readonly text: string;
  /** A sentence or two: shown under the pointer and read by screen readers. */
  readonly tooltip: string;
  readonly colour?: 'error' | 'warning';
}

export function look(status: Status, document: DocumentStatus | undefined): Look {
  switch (status.state) {
    case 'starting':
      return { text: '$(loading~spin) Gemma', tooltip: `${status.message}.` };
    case 'restarting':
      return { text: '$(sync) Gemma', tooltip: status.message, colour: 'warning' };
    case 'missing':
      return { text: '$(warning) Gemma: no server', tooltip: status.message, colour: 'warning' };
    case 'stopped':
      return { text: '$(error) Gemma stopped', tooltip: status.message, colour: 'error' };
    case 'failed':
      return { text: '$(error) Gemma', tooltip: status.error ?? status.message, colour: 'error' };
    case 'loading': {
      const percent = typeof status.percent === 'number' ? ` ${Math.floor(status.percent)}%` : '';
      return { text: `$(loading~spin) Gemma${percent}`, tooltip: `${status.message}.` };
    }
    case 'ready':
    case 'working':
      break;
  }
  const model = status.model ?? 'Gemma';
  const device = typeof status.device === 'string' ? ` on ${status.device}` : '';
  // "cpu (amx, 2 threads)" is for the tooltip: the bar has little room.
  const shortDevice = device.replace(/ \(.*\)$/, '');
  if (typeof document?.off === 'string') {
    const why = document.sentence ?? 'Completion is off for this document.';
    return { text: `$(circle-slash) ${model}`, tooltip: `${why} The model is ready: ${model}${device}.` };
  }
  return status.state === 'working'
    ? { text: `$(sync~spin) ${model}${shortDevice}`, tooltip: `Working: ${model}${device}.` }
    : { text: `$(sparkle) ${model}${shortDevice}`, tooltip: `Ready: ${model}${device}.` };
}

/** What the last completion cost, for whoever wonders whether the cache works. Nothing where the server does not say. */
export function costLine({ reason, tokensAsked, tokensComputed, firstTokenMs }: Cost): string | undefined {
  const time = typeof firstTokenMs !== 'number' ? undefined : firstTokenMs < 1 ? 'less than 1 ms' : `${Math.round(firstTokenMs)} ms`;
  if (typeof tokensAsked === 'number' && typeof tokensComputed === 'number') {
    const first = time === undefined ? '' : `, ${time} to the first`;
    return `Last completion: ${tokensComputed} of ${tokensAsked} tokens computed${first}.`;
  }
  return reason === 'shown' && time !== undefined ? `Last completion: nothing had to be computed, ${time}.` : undefined;
}
