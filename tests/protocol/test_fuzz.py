"""Ten thousand random messages leave the server alive, answering, and right about who is owed what."""

import json
import random
import time

import pytest

import server
from server import inline

SEED = 20_240_229
# Messages to a server without a model, where there is nothing to wait for, and to one with it.
BARE, WITH_MODEL, BYTES = 7_000, 1_500, 1_500

URIS = [f"file:///home/me/{name}" for name in ("a.py", "b.rs", "c%20d.ts", ".env", "gr%C3%BC%C3%9Fe.c")] + [
    "untitled:Untitled-1",
    "file://",
    "not a uri",
    "",
    "file:///" + "x" * 5000,
    "http://example.org/a.py",
]
TEXTS = ["", "x", "\n", "\r\n", "🦀", "e\u0301", "\u2028", "\0", "def f(x):\n    return x\n", "{[(\n", "a\r\nb\rc\n" * 50, "ü" * 3000]
LANGUAGES = ["python", "rust", "typescript", "markdown", "", "klingon"]
NUMBERS = [0, 1, 2, 7, 100, -1, 2**31 - 1, 2**31, 2**32, 2**53, 2**64, -(2**63), 1.5, -0.0, 1e300]
JUNK = [None, True, False, "", "text", [], {}, [[]], {"a": None}, [None] * 5, *NUMBERS]


class Fuzzer:
    """A stream of messages, most of them nearly right."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.next_id = 10_000_000
        self.recent = [1]

    def id(self):
        """A fresh id, a number or a text."""
        self.next_id += 1
        id = self.next_id if self.random.random() < 0.8 else f"id-{self.next_id}"
        self.recent = [*self.recent[-20:], id]
        return id

    def position(self) -> dict:
        small = lambda: self.random.randrange(8)
        odd = lambda: self.random.choice(NUMBERS)
        pick = lambda: small() if self.random.random() < 0.8 else odd()
        return {"line": pick(), "character": pick()}

    def range(self) -> dict:
        return {"start": self.position(), "end": self.position()}

    def document(self) -> dict:
        return {"uri": self.random.choice(URIS), "version": self.random.choice([1, 2, 3, 50, *NUMBERS, None])}

    def change(self) -> dict:
        change = {"text": self.random.choice(TEXTS)}
        if self.random.random() < 0.8:
            change["range"] = self.range()
        if self.random.random() < 0.1:
            change["rangeLength"] = self.random.choice(NUMBERS)
        return change

    def params(self, method: str):
        """Parameters that are right in shape, if not in sense."""
        pick = self.random.choice
        at = {"textDocument": self.document(), "position": self.position()}
        match method:
            case "textDocument/didOpen":
                return {"textDocument": {**self.document(), "languageId": pick(LANGUAGES), "text": pick(TEXTS)}}
            case "textDocument/didChange":
                changes = [self.change() for _ in range(self.random.randrange(4))]
                return {"textDocument": self.document(), "contentChanges": changes}
            case "textDocument/didClose" | "textDocument/didSave":
                return {"textDocument": self.document()}
            case "textDocument/inlineCompletion":
                selected = {"range": self.range(), "text": pick(TEXTS)}
                context = {"triggerKind": pick([1, 2, 2, 2, 0, 99])}
                return {**at, "context": {**context, "selectedCompletionInfo": pick([None, selected])}}
            case "textDocument/completion":
                return {**at, "context": {"triggerKind": pick([1, 2, 3, 4]), "triggerCharacter": pick([".", ""])}}
            case "workspace/executeCommand":
                command = pick(["gemma.status", "gemma.chat", "gemma.explainImage", "rm", ""])
                return {"command": command, "arguments": pick([None, [], [{}], [1, 2], [{"uri": pick(URIS)}]])}
            case "$/cancelRequest":
                return {"id": pick([*self.recent, *NUMBERS, None])}
            case "workspace/didRenameFiles":
                return {"files": [{"oldUri": pick(URIS), "newUri": pick(URIS)} for _ in range(2)]}
            case "workspace/didChangeConfiguration":
                settings = {"maxTokens": pick([2, *JUNK]), "trigger": pick(["manual", *JUNK]), "junk": pick(JUNK)}
                return {"settings": pick([None, {}, {"gemma": settings}, settings])}
            case "gemma/didShowCompletion" | "gemma/didAcceptCompletion":
                return {"textDocument": self.document(), "id": pick(JUNK)}
            case _:
                return pick(JUNK)

    def spoilt(self, value):
        """The same with something of a wrong type somewhere inside."""
        if isinstance(value, dict) and value and self.random.random() < 0.8:
            key = self.random.choice(sorted(value))
            if self.random.random() < 0.2:
                return {name: kept for name, kept in value.items() if name != key}
            return {**value, key: self.spoilt(value[key])}
        if isinstance(value, list) and value and self.random.random() < 0.8:
            at = self.random.randrange(len(value))
            return [*value[:at], self.spoilt(value[at]), *value[at + 1 :]]
        return self.random.choice(JUNK)

    NOTIFICATIONS = [
        "textDocument/didOpen",
        "textDocument/didOpen",
        "textDocument/didChange",
        "textDocument/didChange",
        "textDocument/didChange",
        "textDocument/didClose",
        "textDocument/didSave",
        "workspace/didRenameFiles",
        "workspace/didChangeConfiguration",
        "workspace/didChangeWatchedFiles",
        "gemma/didShowCompletion",
        "gemma/didAcceptCompletion",
        "initialized",
        "$/cancelRequest",
        "$/setTrace",
        "$/unheardOf",
        "unheardOf",
    ]
    REQUESTS = [
        "textDocument/inlineCompletion",
        "textDocument/inlineCompletion",
        "textDocument/completion",
        "workspace/executeCommand",
        "gemma/status",
        "gemma/unheardOf",
        "textDocument/hover",
        "initialize",
        "",
    ]

    def message(self):
        """A message, and the id under which an answer is owed, if one is."""
        dice = self.random.random()
        if dice < 0.05:
            return self.random.choice([*JUNK, [{"jsonrpc": "2.0", "method": "exit"}]]), None
        if dice < 0.10:
            # Answers to what nobody asked, and requests that are none. The latter are rightly refused
            # under their id, so that it is never one under which another answer is owed.
            part = self.random.choice(["result", "error", "params", "method"])
            ids = JUNK if part in ("params", "method") else [*JUNK, *self.recent]
            return {"jsonrpc": "2.0", "id": self.random.choice(ids), part: self.random.choice(JUNK)}, None
        request = self.random.random() < 0.5
        method = self.random.choice(self.REQUESTS if request else self.NOTIFICATIONS)
        params = self.params(method)
        if self.random.random() < 0.3:
            params = self.spoilt(params)
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        if not request:
            # A notification by name, sent as a request: an answer is owed.
            if self.random.random() < 0.1:
                id = self.id()
                return {**message, "id": id}, id
            return message, None
        id = self.id()
        return {**message, "id": id}, id

    def bytes(self) -> bytes:
        """Bytes of which no client library would write a single one."""
        pick = self.random.choice
        body = json.dumps(self.message()[0]).encode()
        framed = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        match self.random.randrange(12):
            case 0:
                at = self.random.randrange(len(body) + 1)
                body = body[:at] + pick([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\0"]) + body[at:]
                return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            case 1:
                body = body[: self.random.randrange(len(body) + 1)]
                return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            case 2:
                depth = pick([100, 1000, 20_000])
                body = b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b"[" * depth + b"]" * depth + b"}"
                return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            case 3:
                length = pick([b"-1", b"", b"x", b"1e3", b"0x10", b"99999999999999999999", b"+5", b"1 2", b"\xff"])
                return b"Content-Length: %s\r\n\r\n%s" % (length, body)
            case 4:
                length = pick([2**31, 2**40, 2**62, 2**63, 2**64 - 1])
                return b"Content-Length: %d\r\n\r\n%s" % (length, body)
            case 5:
                wrong = max(0, len(body) + self.random.randrange(-20, 40))
                return b"Content-Length: %d\r\n\r\n%s" % (wrong, body)
            case 6:
                return b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\n" + framed
            case 7:
                return framed.replace(b"Content-Length", pick([b"content-length", b"CONTENT-LENGTH", b"Content-Size"]))
            case 8:
                return framed.replace(b"\r\n", pick([b"\n", b"\r", b"\r\n\r\n"]))
            case 9:
                return pick([b"\r\n", b"\r\n\r\n", b"\n" * 50, b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"{}" * 40])
            case 10:
                return self.random.randbytes(self.random.randrange(1, 200))
            case _:
                return framed


def assert_answers(running, what: str):
    """Asserts that the server still answers, whatever half a message may stand in the pipe before."""
    deadline = time.monotonic() + server.PATIENCE
    while time.monotonic() < deadline:
        assert running.process.poll() is None, f"it died of {what}: {running.tail()}"
        id = running.start("gemma/status", {})
        try:
            running.until(lambda: running.answers.get(id), "answer", patience=2.0)
            return
        except AssertionError as error:
            assert running.broken is None, error
    raise AssertionError(f"it answers no more after {what}")


def send_random(running, fuzzer: Fuzzer, count: int):
    """Sends messages and holds the server to exactly one answer for each request."""
    owed = {}
    for number in range(count):
        message, id = fuzzer.message()
        running.message(message)
        if id is not None:
            owed[id] = message
        if number % 500 == 499:
            assert_answers(running, f"{number + 1} messages")
    deadline = time.monotonic() + server.PATIENCE / 4
    while time.monotonic() < deadline and not all(running.answers.get(id) for id in owed):
        time.sleep(0.05)
    unanswered = [message for id, message in owed.items() if not running.answers.get(id)]
    assert not unanswered, f"{len(unanswered)} of {len(owed)} requests have no answer: {unanswered[:5]}"
    time.sleep(0.2)
    twice = [message for id, message in owed.items() if len(running.answers[id]) != 1]
    assert not twice, f"{len(twice)} of {len(owed)} requests were answered more than once: {twice[:5]}"


def test_random_messages_without_a_model(start):
    running = start(model="/no/such/model.gguf")
    running.initialize()
    send_random(running, Fuzzer(SEED), BARE)


def test_random_messages_with_the_real_model(start):
    running = start(model=server.model(), maxTokens=2, maxTimeMs=200)
    running.initialize()
    running.ready()
    send_random(running, Fuzzer(SEED + 1), WITH_MODEL)
    running.settings = {"model": server.model(), "maxTokens": 32, "trigger": "automatic", **server.UNHURRIED}
    running.notify("workspace/didChangeConfiguration", {"settings": {"gemma": running.settings}})
    uri = running.open(uri="file:///home/me/after.py")
    running.ready()
    running.until(
        lambda: server.items(running.request("textDocument/inlineCompletion", inline(uri, kind=1))),
        "suggestion after it all",
    )


def test_random_bytes(start):
    running = start(model="/no/such/model.gguf")
    running.initialize()
    fuzzer = Fuzzer(SEED + 2)
    for number in range(BYTES):
        running.raw(fuzzer.bytes())
        if number % 50 == 49:
            assert_answers(running, f"{number + 1} pieces")


@pytest.mark.parametrize("seed", range(4))
def test_random_messages_before_initialize(start, seed):
    running = start(model="/no/such/model.gguf")
    fuzzer = Fuzzer(SEED + 10 + seed)
    for _ in range(100):
        message, _ = fuzzer.message()
        if not (isinstance(message, dict) and message.get("method") == "initialize"):
            running.message(message)
    running.initialize()
    assert_answers(running, "messages before initialize")


def test_a_file_of_fifty_thousand_lines(start):
    running = start(model="/no/such/model.gguf")
    running.initialize()
    uri = running.open("value = 1\n" * 50_000, uri="file:///home/me/large.py")
    chosen = random.Random(SEED)
    for version in range(2, 300):
        at = {"line": chosen.randrange(50_000), "character": chosen.randrange(12)}
        running.change(uri, version, chosen.choice(TEXTS[:8]), at=at)
    assert_answers(running, "edits of a large file")
