// Earlier conversations of the workspace in VS Code's own list, to reopen and to delete.

import { ThemeIcon, window, type QuickPickItem } from 'vscode';

import type { Chat } from './chat';
import type { Entry } from './shelf';

interface Item extends QuickPickItem {
  readonly id: string;
}

const DELETE = { iconPath: new ThemeIcon('trash'), tooltip: 'Delete This Chat' };

/** Resolves when the list is gone; says whether a conversation was opened. */
export function pickChat(chat: Chat): Promise<boolean> {
  const list = window.createQuickPick<Item>();
  list.title = 'Earlier Chats in This Workspace';
  list.matchOnDescription = true;
  const show = (): void => {
    list.items = chat.entries().map(itemOf);
    list.placeholder =
      list.items.length > 0 ? 'Choose a chat to go on with it' : 'There is no earlier chat in this workspace';
  };
  show();
  return new Promise((resolve) => {
    let opened = false;
    list.onDidTriggerItemButton(async ({ item }) => {
      await chat.remove(item.id);
      show();
    });
    list.onDidAccept(() => {
      const [item] = list.selectedItems;
      if (item) {
        chat.open(item.id);
        opened = true;
      }
      list.hide();
    });
    list.onDidHide(() => {
      list.dispose();
      resolve(opened);
    });
    list.show();
  });
}

function itemOf({ id, title, updated, questions }: Entry): Item {
  const when = new Date(updated).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
  const many = questions === 1 ? '1 question' : `${questions} questions`;
  return { id, label: title, description: `${many}, ${when}`, buttons: [DELETE] };
}
