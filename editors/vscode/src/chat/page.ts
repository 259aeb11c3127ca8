// The page of the chat view: two files of this extension, and nothing else may be loaded or run.

export interface Page {
  readonly script: string;
  readonly style: string;
  /** Where the webview may take files of this extension from. */
  readonly source: string;
  readonly nonce: string;
}

export function pageOf({ script, style, source, nonce }: Page): string {
  const policy = [
    "default-src 'none'",
    `script-src 'nonce-${nonce}'`,
    `style-src ${source}`,
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="${style}">
<title>Gemma</title>
</head>
<body>
<script nonce="${nonce}" src="${script}"></script>
</body>
</html>`;
}
