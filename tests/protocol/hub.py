"""A small HTTP server in the hub's place, with one model that arrives as slowly as a test wants."""

import hashlib
import http.server
import json
import threading

# What `gemma/pullModel` is asked for.
SPEC = "hf:someone/tiny-GGUF/tiny.gguf"
BYTES = bytes(n * 7 % 251 for n in range(1 << 20)) * 3
# A download that is held has brought this much.
HELD_AT = 1 << 20


class Hub:
    """The server, on a port of its own."""

    def __init__(self):
        self.hold = threading.Event()
        self.go_on = threading.Event()
        self.ranges = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(self)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict:
        """Where a server finds this hub, and nothing of the machine's own."""
        return {"HF_ENDPOINT": f"http://127.0.0.1:{self._server.server_address[1]}", "HF_TOKEN": "", "NO_PROXY": "*"}

    def close(self):
        """Ends the server and whoever waits in it."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request):
        """Answers one request."""
        try:
            if request.path.startswith("/api/models/"):
                sha256 = hashlib.sha256(BYTES).hexdigest()
                file = {"rfilename": "tiny.gguf", "size": len(BYTES), "lfs": {"sha256": sha256, "size": len(BYTES)}}
                self._reply(request, 200, json.dumps({"sha": "c0ffee", "siblings": [file]}).encode())
            else:
                self._file(request)
        except OSError:
            pass  # The client went away, as some tests want it.

    def _file(self, request):
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body = BYTES[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Content-Range", f"bytes {start}-{len(BYTES) - 1}/{len(BYTES)}")
        request.end_headers()
        if self.hold.is_set():
            request.wfile.write(body[:HELD_AT])
            request.wfile.flush()
            self.go_on.wait()
            body = body[HELD_AT:]
        request.wfile.write(body)

    @staticmethod
    def _reply(request, status: int, body: bytes):
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
