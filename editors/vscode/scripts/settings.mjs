// Writes the server's settings into package.json, from the schema that the server prints:
//
//     npm run settings -- path/to/gemma-ls            writes
//     npm run settings -- path/to/gemma-ls --check    says whether it would change anything

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';

/** What people look for first. The others follow in the order of their names. */
const FIRST = ['model', 'chatModel', 'device', 'trigger', 'multiLine', 'languagesOff', 'filesOff', 'secretFiles'];
/** What depends on the machine and is therefore not synchronised between machines. */
const OF_THE_MACHINE = ['model', 'chatModel', 'device', 'threads', 'memoryBudgetMb'];

const CHECK = '--check';
const [program = process.env.GEMMA_LS_BIN] = process.argv.slice(2).filter((argument) => argument !== CHECK);
if (program === undefined) {
  console.error('settings: name the program gemma-ls, or set GEMMA_LS_BIN.');
  process.exit(2);
}
const schema = JSON.parse(execFileSync(program, ['inspect', 'settings'], { encoding: 'utf8' }));
const file = new URL('../package.json', import.meta.url);
const before = readFileSync(file, 'utf8');
const manifest = JSON.parse(before);
const others = manifest.contributes.configuration.filter(({ id }) => id !== 'gemma');
manifest.contributes.configuration = [section(schema), ...others];
const after = `${JSON.stringify(manifest, null, 2)}\n`;
if (!process.argv.includes(CHECK)) {
  writeFileSync(file, after);
} else if (after !== before) {
  console.error('settings: package.json does not say what the server says; run: npm run settings -- path/to/gemma-ls');
  process.exit(1);
}

/** The section of package.json for a schema. */
function section(schema) {
  const names = [...FIRST, ...Object.keys(schema.properties).filter((name) => !FIRST.includes(name)).sort()];
  const properties = names.map((name, order) => [`gemma.${name}`, property(name, schema.properties[name], order)]);
  return { id: 'gemma', title: 'Gemma', properties: Object.fromEntries(properties) };
}

function property(name, { description, ...rest }, order) {
  const scope = OF_THE_MACHINE.includes(name) ? 'machine-overridable' : 'window';
  return { ...rest, markdownDescription: description, scope, order };
}
