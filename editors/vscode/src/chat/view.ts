// The chat view in the side bar: carries messages between its page and the extension.

import {
  Disposable,
  EventEmitter,
  Uri,
  commands,
  type CancellationToken,
  type Event,
  type Webview,
  type WebviewView,
  type WebviewViewProvider,
  type WebviewViewResolveContext,
} from 'vscode';

import { parseToHost, type ToHost, type ToView } from './messages';
import { pageOf } from './page';

export const VIEW = 'gemma.chat';

export class ChatView implements WebviewViewProvider {
  private webview: Webview | undefined;
  /** Its page has loaded and listens. */
  private ready = false;
  private readonly loaded = new EventEmitter<void>();

  constructor(
    private readonly extension: Uri,
    private readonly onMessage: (message: ToHost) => void,
  ) {}

  resolveWebviewView(view: WebviewView, _context: WebviewViewResolveContext, _token: CancellationToken): void {
    const { webview } = view;
    const folder = Uri.joinPath(this.extension, 'dist', 'webview');
    this.webview = webview;
    this.ready = false;
    webview.options = { enableScripts: true, localResourceRoots: [folder] };
    const listening = Disposable.from(
      webview.onDidReceiveMessage((message: unknown) => this.receive(message)),
      // A hidden page is gone; when the view is shown again, a new one loads.
      view.onDidChangeVisibility(() => {
        this.ready = this.ready && view.visible;
      }),
      view.onDidDispose(() => {
        listening.dispose();
        this.webview = undefined;
        this.ready = false;
      }),
    );
    webview.html = pageOf({
      script: webview.asWebviewUri(Uri.joinPath(folder, 'main.js')).toString(),
      style: webview.asWebviewUri(Uri.joinPath(folder, 'style.css')).toString(),
      source: webview.cspSource,
      nonce: crypto.randomUUID().replaceAll('-', ''),
    });
  }

  /** A page that has not loaded is told everything when it has. */
  say(message: ToView): void {
    if (this.ready) {
      void this.webview?.postMessage(message);
    }
  }

  /** Opens the view and puts the cursor into its field. Resolves when its page listens. */
  async focus(): Promise<void> {
    const loading = this.ready ? undefined : once(this.loaded.event);
    await commands.executeCommand(`${VIEW}.focus`);
    await loading;
    this.say({ type: 'focus' });
  }

  private receive(message: unknown): void {
    const known = parseToHost(message);
    if (!known) {
      return;
    }
    if (known.type === 'ready') {
      this.ready = true;
    }
    this.onMessage(known);
    if (known.type === 'ready') {
      this.loaded.fire();
    }
  }
}

function once(event: Event<void>): Promise<void> {
  return new Promise((resolve) => {
    const listening = event(() => {
      listening.dispose();
      resolve();
    });
  });
}
