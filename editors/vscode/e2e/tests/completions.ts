// Grey text: it is what the server said, and taking all, a word or a line of it leaves the right file on disk.

import { deepEqual, equal, notEqual, ok } from 'node:assert/strict';
import { KEY } from '../src/keys.ts';
import { tests } from '../src/runner.ts';
import { shownBy, suggestion } from '../src/suggestion.ts';

const START = 'package main\n\nimport "fmt"\n\nfunc main() {\n\tfor i := 0; i < 10; i++ {\n\t\tfmt.Pri';

export const completions = tests({
  'typing shows grey text, and it is the server\'s': async (world) => {
    const window = await world.window();
    world.write('grey.go', START);
    await window.show('grey.go');
    await window.ready();
    await window.type('n');
    const lines = await window.ghostShown();
    deepEqual(lines, shownBy(await suggestion(world), 4));
  },

  'Tab takes the suggestion, and it is saved as it was shown': async (world) => {
    const window = await world.window();
    world.write('tab.go', START);
    await window.show('tab.go');
    await window.type('n');
    await window.ghostShown();
    const { text } = await suggestion(world);
    await window.press('Tab');
    await window.save();
    equal(world.read('tab.go'), `${START}n${text}`);
  },
});
