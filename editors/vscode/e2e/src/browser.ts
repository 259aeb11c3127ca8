// The browser that VS Code's windows are opened in.

import { type BrowserContext, chromium } from 'playwright-core';
import { PATIENCE_MS } from './wait.ts';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Opens a browser with an empty profile that may use the clipboard. Closing the context's browser closes it. */
export async function openBrowser(): Promise<BrowserContext> {
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    headless: true,
    args: FLAGS,
    timeout: PATIENCE_MS,
    // Playwright would close the browser and let the tests go on without it.
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
  });
  const context = await browser.newContext({
    viewport: { width: 1200, height: 760 },
    colorScheme: 'dark',
    permissions: ['clipboard-read', 'clipboard-write'],
  });
  context.setDefaultTimeout(PATIENCE_MS);
  return context;
}
