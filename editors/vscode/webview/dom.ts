// Building elements: always with text nodes and attributes, never from markup.

export type Child = globalThis.Node | string | undefined | false;
type Attributes = Readonly<Record<string, string | boolean | undefined>>;

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) {
      element.setAttribute(name, '');
    } else if (typeof value === 'string') {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== undefined && child !== false));
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/** Strokes on a grid of 16, drawn in the colour of the text around them. */
const ICONS = {
  copy: 'M5.5 5.5h8v8h-8z M3 10.5h-.5v-8h8V3',
  check: 'M3 8.5l3.5 3.5L13 4.5',
  insert: 'M2 3.5h12 M2 12.5h12 M2 8h6 M13 6l-2.5 2L13 10',
  diff: 'M8 2.5v6 M5 5.5h6 M5 13h6',
  send: 'M2.5 2.5L14 8 2.5 13.5 4.5 8z M4.5 8H9',
  stop: 'M4 4h8v8H4z',
  close: 'M4 4l8 8 M12 4l-8 8',
  picture: 'M2 3h12v10H2z M2 11l3.5-3.5 3 3L10.5 8.5 14 12 M10.5 5.5h.01',
  file: 'M4 1.5h5.5L13 5v9.5H4z M9.5 1.5V5H13',
  retry: 'M13 8a5 5 0 1 1-1.5-3.6 M13.2 1.8v3h-3',
} as const;

export type Icon = keyof typeof ICONS;

export function icon(name: Icon): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with a picture; `label` is its tooltip and what a screen reader says. */
export function iconButton(name: Icon, label: string, onClick: () => void): HTMLButtonElement {
  const button = make(
    'button',
    { type: 'button', class: 'icon-button', title: label, 'aria-label': label },
    icon(name),
  );
  button.addEventListener('click', onClick);
  return button;
}

export function textButton(label: string, onClick: () => void, style = 'secondary'): HTMLButtonElement {
  const button = make('button', { type: 'button', class: style }, label);
  button.addEventListener('click', onClick);
  return button;
}

/** Swaps a button's icon and label for a moment, to say that it worked. */
export function confirm(button: HTMLButtonElement, label: string): void {
  const before = { label: button.title, icon: [...button.childNodes] };
  button.replaceChildren(icon('check'));
  relabel(button, label);
  setTimeout(() => {
    button.replaceChildren(...before.icon);
    relabel(button, before.label);
  }, 1500);
}

export function relabel(button: HTMLButtonElement, label: string): void {
  button.title = label;
  button.setAttribute('aria-label', label);
}
