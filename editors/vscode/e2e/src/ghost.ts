// Reads grey text from an editor's elements. Runs in the browser, so it uses nothing from outside of itself.

/** The lines of grey text, where there is any: the rest of the cursor's line, then the lines below it. */
export function ghostText(editor: Element): string[] | undefined {
  const text = (elements: Iterable<Element>): string =>
    [...elements].map((element) => element.textContent).join('').replaceAll('\u00a0', ' ');
  const inline = [...editor.querySelectorAll('.view-lines .view-line')]
    .map((line) => line.querySelectorAll('.ghost-text-decoration'))
    .filter((parts) => parts.length > 0)
    .map(text);
  const below = [...editor.querySelectorAll('.view-zones .suggest-preview-text .view-line')].map((line) => text([line]));
  const lines = [...(inline.length > 0 ? inline : ['']), ...below];
  return inline.length + below.length > 0 ? lines : undefined;
}
