// When the extension's code began to run. Imported before everything else.

export const began = performance.now();
