// Keys for commands that have none by default, so that a test need not go through the command palette.

export const KEY = {
  acceptLine: 'Control+Alt+l',
  discard: 'Control+Alt+w',
  clearNotices: 'Control+Alt+n',
  focusEditor: 'Control+Alt+e',
  settings: 'Control+Alt+s',
  refreshExplorer: 'Control+Alt+r',
} as const;

const COMMANDS: Record<keyof typeof KEY, string> = {
  acceptLine: 'editor.action.inlineSuggest.acceptNextLine',
  discard: 'workbench.action.revertAndCloseActiveEditor',
  clearNotices: 'notifications.clearAll',
  settings: 'workbench.action.openSettingsJson',
  refreshExplorer: 'workbench.files.action.refreshFilesExplorer',
  focusEditor: 'workbench.action.focusActiveEditorGroup',
};

/** The content of VS Code's `keybindings.json`. */
export function keybindings(): { key: string; command: string }[] {
  return Object.entries(COMMANDS).map(([name, command]) => ({
    key: KEY[name as keyof typeof KEY].toLowerCase().replace('control', 'ctrl'),
    command,
  }));
}
