// Which settings reach the server.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';

import { serverKeys, userSettings, userValue } from '../../src/settings/values';

interface Property {
  readonly scope: string;
  readonly markdownDescription: string;
}

const manifest = JSON.parse(readFileSync('package.json', 'utf8'));
const sections: { id: string; properties: Record<string, Property> }[] = manifest.contributes.configuration;
const properties: Record<string, Property> = Object.assign({}, ...sections.map((section) => section.properties));

describe('the server gets', () => {
  it('what the user has set, and no default', () => {
    const set: Record<string, object> = {
      model: { defaultValue: null, globalValue: 'codegemma-2b' },
      maxTokens: { defaultValue: 96 },
      threads: { defaultValue: null, globalValue: null },
      languagesOff: { defaultValue: [], globalValue: ['markdown'], workspaceValue: [] },
    };
    const sent = userSettings(Object.keys(set), (key) => set[key]);
    assert.deepEqual(sent, { model: 'codegemma-2b', languagesOff: [] });
  });

  it('the nearest value', () => {
    assert.equal(userValue({ globalValue: 1, workspaceValue: 2, workspaceFolderValue: 3 }), 3);
    assert.equal(userValue({ globalValue: 1, workspaceValue: 2 }), 2);
    assert.equal(userValue({ globalValue: 1 }), 1);
    assert.equal(userValue(undefined), undefined);
  });

  it('its own settings, and none of the extension', () => {
    assert.deepEqual(serverKeys(['gemma.model', 'gemma.server.path', 'editor.tabSize']), ['model']);
    const server = sections.find(({ id }) => id === 'gemma');
    assert.deepEqual(
      serverKeys(Object.keys(properties)).map((key) => `gemma.${key}`),
      Object.keys(server?.properties ?? {}),
    );
  });
});

describe('package.json', () => {
  it('describes every setting', () => {
    for (const [key, property] of Object.entries(properties)) {
      assert.match(property.markdownDescription, /\.$/, key);
    }
  });

  it('restricts what a folder that is not trusted could harm with', () => {
    const restricted: string[] = manifest.capabilities.untrustedWorkspaces.restrictedConfigurations;
    for (const key of Object.keys(properties).filter((key) => key.startsWith('gemma.server.'))) {
      assert.ok(restricted.includes(key), key);
    }
    for (const key of restricted) {
      assert.ok(key in properties, `${key} is no setting`);
    }
  });

  it('puts every command that a menu names into words', () => {
    const named = new Set(manifest.contributes.commands.map(({ command }: { command: string }) => command));
    const menus: { command?: string }[][] = Object.values(manifest.contributes.menus);
    for (const { command } of menus.flat()) {
      assert.ok(command === undefined || named.has(command), command);
    }
  });
});
