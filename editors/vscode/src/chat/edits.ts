// What a code block does to a text: indenting it for the place where it goes, and replacing a range.

/** The block's own common indentation taken away, so that it can take the one of its new place. */
export function outdent(text: string): string {
  const lines = text.split('\n');
  const indents = lines.filter((line) => line.trim() !== '').map((line) => indentOf(line));
  const common = indents.reduce((shared, indent) => sharedStart(shared, indent), indents[0] ?? '');
  return lines.map((line) => (line.trim() === '' ? '' : line.slice(common.length))).join('\n');
}

/**
 * A code block as it is inserted at the cursor. Its first line goes where the cursor is; the
 * others get the indentation of the cursor's line.
 */
export function atCursor(text: string, lineBeforeCursor: string): string {
  const indent = indentOf(lineBeforeCursor);
  const [first = '', ...others] = outdent(text.replace(/\r\n?/g, '\n').replace(/\n+$/, '')).split('\n');
  return [first, ...others.map((line) => (line === '' ? '' : indent + line))].join('\n');
}

export function replaced(text: string, from: number, to: number, by: string): string {
  return text.slice(0, from) + by + text.slice(to);
}

function indentOf(line: string): string {
  return /^[ \t]*/.exec(line)?.[0] ?? '';
}

function sharedStart(a: string, b: string): string {
  let length = 0;
  while (length < a.length && a[length] === b[length]) {
    length += 1;
  }
  return a.slice(0, length);
}
