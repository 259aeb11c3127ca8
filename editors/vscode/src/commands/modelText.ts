// What the list of models says of one.

import type { Model } from '../protocol';

/** A size as people say it. */
export function size(bytes: number): string {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
}

/** What it is good for, and where it comes from. */
export function detailOf(model: Model): string {
  const uses = [
    model.infill ? 'made for code' : '',
    model.instructed ? 'answers questions' : '',
    model.pictures ? 'reads pictures' : '',
  ].filter((use) => use !== '');
  const where = model.installed ? (model.path ?? '') : licence(model);
  return [uses.join(', '), where].filter((part) => part !== '').join(' — ');
}

function licence(model: Model): string {
  return typeof model.page === 'string' ? 'its licence has to be accepted first' : '';
}
