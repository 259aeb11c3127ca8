"""The shipped binary as a subprocess, and a raw client that can say anything to it, right or wrong.

What a well-behaved client sends is tested with pytest-lsp; this is for everything else: what comes in
which order, how many answers there are, and bytes that no client library would write.
"""

import collections
import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import threading
import time

# How long anything may take before it counts as hanging: far longer than any should.
PATIENCE = 120.0

# Settings under which a busy machine shows what an idle one does.
UNHURRIED = {"maxTimeMs": 100_000}

SAMPLE = '''\
def fibonacci(n):
    """Return the n-th Fibonacci number."""
    if n < 2:
        return n
    return fibonacci(n - 1) + \n\nprint(fibonacci(10))
'''
# Behind the plus sign.
CURSOR = {"line": 4, "character": 30}


def binary() -> str:
    """The shipped binary."""
    path = pathlib.Path(os.environ.get("GEMMA_LS_BIN", "target/release/gemma-ls"))
    assert path.is_file(), f"{path} is not there: run tests/run, or point GEMMA_LS_BIN at it"
    return str(path.resolve())


def model() -> str:
    """The real Gemma 3 270M."""
    path = pathlib.Path(os.environ.get("GEMMA_LS_TEST_MODEL", ""))
    assert path.is_file(), "run tests/run, or point GEMMA_LS_TEST_MODEL at gemma-3-270m-q4_k_m.gguf"
    return str(path.resolve())


def environment(home: pathlib.Path) -> dict:
    """The environment of a server that finds no user's settings, and counts for no user's statistics."""
    return {**os.environ, "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "NO_COLOR": "1"}


class Server:
    """A running server and everything that it has sent."""

    def __init__(self, home: pathlib.Path, settings: dict | None = None, variables: dict | None = None):
        self.settings = settings
        self.log = home / "stderr.log"
        self.process = subprocess.Popen(
            [binary(), "lsp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("wb"),
            env={**environment(home), **(variables or {})},
            cwd=home,
        )
        self.answers = collections.defaultdict(list)
        self.notifications = []
        self.broken = None
        # Far from any number that random messages use as an id.
        self._ids = itertools.count(1_000_001)
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._ended = False
        self._gathering = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # Sending

    def raw(self, data: bytes):
        """Writes bytes as they are."""
        with self._writing:
            self.process.stdin.write(data)
            if not self._gathering:
                self.process.stdin.flush()

    @contextlib.contextmanager
    def at_once(self):
        """Gathers what is sent inside, and writes it in one piece."""
        self._gathering = True
        yield
        self._gathering = False
        self.raw(b"")

    def body(self, body: bytes):
        """Writes a body with a right header."""
        self.raw(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def message(self, message):
        """Writes any JSON value as a message."""
        self.body(json.dumps(message).encode())

    def notify(self, method: str, params=None):
        """Sends a notification."""
        self.message({"jsonrpc": "2.0", "method": method, "params": params})

    def start(self, method: str, params=None) -> int:
        """Sends a request and returns its id without waiting."""
        id = next(self._ids)
        self.message({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        return id

    # Receiving

    def until(self, done, what: str, patience: float = PATIENCE):
        """Waits until `done()` gives something, and returns it."""
        deadline = time.monotonic() + patience
        with self._changed:
            while not (found := done()):
                left = deadline - time.monotonic()
                assert self.broken is None, f"the server wrote what is no message: {self.broken}"
                assert not self._ended, f"the server ended before {what}: {self.tail()}"
                assert left > 0, f"no {what} after {patience} s: {self.tail()}"
                self._changed.wait(min(left, 1.0))
            return found

    def answer(self, id) -> dict:
        """Waits for the answer to a request: the whole message."""
        return self.until(lambda: self.answers.get(id), f"answer to request {id}")[0]

    def request(self, method: str, params=None):
        """Sends a request, waits for its answer and returns its result."""
        answer = self.answer(self.start(method, params))
        assert "error" not in answer, answer
        return answer["result"]

    def said(self, method: str) -> list:
        """The parameters of all notifications of one method so far."""
        with self._changed:
            return [params for name, params in self.notifications if name == method]

    def tail(self) -> str:
        """The end of the server's log."""
        return self.log.read_text(errors="replace")[-2000:]

    def panicked(self) -> bool:
        """Whether the log has a panic's text."""
        return "panicked at" in self.log.read_text(errors="replace")

    # A session

    def initialize(self, **more) -> dict:
        """Opens a session, as a plain client with few capabilities does."""
        params = {
            "processId": os.getpid(),
            "rootUri": None,
            "capabilities": {"window": {"workDoneProgress": True}, "workspace": {"configuration": True}},
            "initializationOptions": self.settings,
            **more,
        }
        result = self.request("initialize", params)
        self.notify("initialized", {})
        return result

    def open(self, text: str = SAMPLE, uri: str = "file:///home/me/sample.py", language: str = "python"):
        """Opens a document and returns its URI."""
        item = {"uri": uri, "languageId": language, "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})
        return uri

    def change(self, uri: str, version: int, text: str, at: dict | None = None, end: dict | None = None):
        """Replaces a range of a document, or all of it."""
        change = {"text": text}
        if at is not None:
            change["range"] = {"start": at, "end": end or at}
        document = {"uri": uri, "version": version}
        self.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})

    def ready(self) -> "Server":
        """Waits until the model is loaded."""
        deadline = time.monotonic() + PATIENCE
        while (state := self.status()["model"]["state"]) != "ready":
            assert state == "loading", f"the model is {state}: {self.tail()}"
            assert time.monotonic() < deadline, "the model does not load"
            time.sleep(0.05)
        return self

    def status(self) -> dict:
        """What the server says of itself."""
        return self.request("gemma/status", {})

    def wait(self, patience: float = PATIENCE) -> int:
        """Waits for the process to end and returns its exit code."""
        return self.process.wait(patience)

    def close(self):
        """Ends the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)

    # The reading thread

    def _read(self):
        try:
            while (message := self._next()) is not None:
                self._take(message)
        except (ValueError, AssertionError) as error:
            self.broken = repr(error)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _next(self):
        length = None
        while (line := self.process.stdout.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if line == b"":
            return None
        assert length is not None, "a message without Content-Length"
        return json.loads(self.process.stdout.read(length))

    def _take(self, message: dict):
        assert message["jsonrpc"] == "2.0", message
        with self._changed:
            if "method" not in message:
                self.answers[message["id"]].append(message)
            elif "id" not in message:
                self.notifications.append((message["method"], message.get("params")))
            self._changed.notify_all()
        if "method" in message and "id" in message:
            self._reply(message)

    def _reply(self, request: dict):
        result = None
        if request["method"] == "workspace/configuration":
            result = [self.settings for _ in request["params"]["items"]]
        try:
            self.message({"jsonrpc": "2.0", "id": request["id"], "result": result})
        except (BrokenPipeError, ValueError):
            pass


def inline(uri: str, position: dict = CURSOR, kind: int = 2, **context) -> dict:
    """Parameters of an inline completion; kind 1 is invoked, 2 automatic."""
    return {
        "textDocument": {"uri": uri},
        "position": position,
        "context": {"triggerKind": kind, **context},
    }


def items(result) -> list:
    """The items of a completion, in either of the shapes that the protocol allows."""
    if result is None:
        return []
    return result["items"] if isinstance(result, dict) else result
