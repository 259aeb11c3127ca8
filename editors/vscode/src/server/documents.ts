// Which documents the server is shown: files, new ones that have no name yet, and cells of notebooks.

import type { DocumentFilter } from 'vscode';

export const DOCUMENTS = [
  { scheme: 'file' },
  { scheme: 'untitled' },
  { scheme: 'vscode-notebook-cell' },
] satisfies DocumentFilter[];
