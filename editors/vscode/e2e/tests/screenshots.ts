// The pictures that the README shows, taken of the real thing. Only where $E2E_SCREENSHOTS asks for them.

import { join } from 'node:path';
import { ChatView } from '../src/chat.ts';
import { media } from '../src/places.ts';
import { tests } from '../src/runner.ts';

const SOURCE = `\
class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()

    def peek(self):
`;

const START = '        if not';

export const screenshots = tests({
  'the pictures of the README are taken': async (world) => {
    await world.configure({
      'workbench.colorTheme': 'Default Dark Modern',
      'editor.minimap.enabled': false,
      'gemma.multiLine': 'always',
      'gemma.maxTokens': 64,
    });
    const window = await world.window();
    const take = (name: string): Promise<unknown> => {
      return window.page.screenshot({ path: join(media, name), animations: 'disabled', caret: 'initial' });
    };
    await window.page.setViewportSize({ width: 960, height: 560 });
    world.write('stack.py', `${SOURCE}${START.slice(0, -1)}`);
    await window.show('stack.py');
    const chat = await ChatView.begin(window);
    await window.focus();
    await window.type(START.slice(-1));
    await window.ghostShown();
    await take('grey-text.png');

    await window.openMenu();
    await take('menu.png');
    await window.closeMenu();

    await window.page.setViewportSize({ width: 1200, height: 760 });
    await chat.ask('What does this class do?');
    const turn = await chat.answered(1);
    await turn.scrollIntoViewIfNeeded();
    await take('chat.png');
  },
});
