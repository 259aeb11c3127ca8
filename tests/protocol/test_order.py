"""Superseding, cancelling, and that every request is answered exactly once."""

import time

import server
from server import inline, items

# A document whose prompt takes a while to read: many functions, none like another.
LONG = "\n".join(
    f"def step_{n}(value_{n}):\n    return value_{n} * {n * 7919 % 1000} + {n}\n" for n in range(400)
)
END = {"line": LONG.count("\n"), "character": 0}


def completions(running) -> dict:
    """How many completions were asked for, and what became of them."""
    return running.status()["completions"]


def grown(before: dict, after: dict) -> dict:
    """What the counters have grown by."""
    return {name: after[name] - before[name] for name in after if isinstance(after[name], int)}


def settled(running) -> dict:
    """The counters once nothing is being computed any more."""
    deadline = time.monotonic() + server.PATIENCE
    while (status := running.status())["engine"]["running"] > 0:
        assert time.monotonic() < deadline, "the engine never rests"
        time.sleep(0.02)
    return status["completions"]


def test_a_burst_of_twenty_computes_one(real):
    uri = real.open(LONG)
    before = completions(real)
    ids = []
    for n in range(20):
        at = {"line": END["line"], "character": n}
        real.change(uri, 2 + n, "def last_step():"[n % 16], at=at)
        ids.append(real.start("textDocument/inlineCompletion", inline(uri, {**at, "character": n + 1})))
    answers = [real.answer(id) for id in ids]
    assert all("error" not in answer for answer in answers), answers
    assert all(items(answer["result"]) == [] for answer in answers[:-1])

    growth = grown(before, settled(real))
    assert growth["requested"] == 20, growth
    assert growth["computed"] == 1, growth
    assert growth["superseded"] == 19, growth
    time.sleep(0.2)
    assert all(len(real.answers[id]) == 1 for id in ids)


def test_a_cancelled_request_is_answered_once_and_computes_no_more(real):
    uri = real.open(LONG)
    before = completions(real)
    id = real.start("textDocument/inlineCompletion", inline(uri, END))
    real.until(lambda: True, "nothing")
    real.notify("$/cancelRequest", {"id": id})
    answer = real.answer(id)
    if "error" in answer:
        assert answer["error"]["code"] == -32800, answer
    else:
        assert items(answer["result"]) == [], answer
    growth = grown(before, settled(real))
    assert growth["computed"] == 0, growth
    assert real.request("textDocument/inlineCompletion", inline(real.open())) is not None
    assert len(real.answers[id]) == 1


def test_cancelling_stops_the_computing_itself(start):
    running = start(model=server.model(), maxTokens=4096, maxTimeMs=600_000, multiLine="always")
    running.initialize()
    running.ready()
    text = "# The numbers from 1 to 5000, one on each line.\n" + "".join(f"# {n}\n" for n in range(1, 30))
    uri = running.open(text, uri="file:///home/me/numbers.py")
    place = {"line": text.count("\n"), "character": 0}
    id = running.start("textDocument/inlineCompletion", inline(uri, place, kind=1))
    time.sleep(0.3)
    running.notify("$/cancelRequest", {"id": id})
    running.answer(id)
    settled(running)


def test_cancelling_what_is_unknown_or_done_is_harmless(real):
    uri = real.open()
    done = real.start("textDocument/inlineCompletion", inline(uri))
    real.answer(done)
    for id in [done, 999_999, "a", None, -1, {"id": 1}]:
        real.notify("$/cancelRequest", {"id": id})
    assert items(real.request("textDocument/inlineCompletion", inline(uri)))
    assert len(real.answers[done]) == 1


def test_another_document_does_not_supersede(real):
    first, second = (real.open(uri=f"file:///home/me/{name}.py") for name in ("first", "second"))
    ids = [real.start("textDocument/inlineCompletion", inline(uri)) for uri in (first, second)]
    assert all(items(real.answer(id)["result"]) for id in ids)


def test_edits_are_applied_in_the_order_they_came(real):
    """A thousand one-letter edits with no pause, then a question whose answer depends on all of them."""
    uri = real.open("", uri="file:///home/me/typed.py")
    line, character = 0, 0
    for version, letter in enumerate(server.SAMPLE, start=2):
        real.change(uri, version, letter, at={"line": line, "character": character})
        line, character = (line + 1, 0) if letter == "\n" else (line, character + 1)
    typed = items(real.request("textDocument/inlineCompletion", inline(uri)))
    opened = items(real.request("textDocument/inlineCompletion", inline(real.open(uri="file:///home/me/other.py"))))
    # Each has an id of its own, for the statistics.
    commands = [item.pop("command") for item in typed + opened]
    assert typed and typed == opened and commands[0] != commands[1]


def test_requests_before_and_after_the_session(start):
    running = start(model="/no/such/model.gguf")
    early = running.answer(running.start("textDocument/inlineCompletion", inline("file:///x.py")))
    assert early["error"]["code"] == -32002, early
    running.initialize()
    again = running.answer(running.start("initialize", {"capabilities": {}}))
    assert again["error"]["code"] == -32600, again
    unknown = running.answer(running.start("textDocument/unheardOf", {}))
    assert unknown["error"]["code"] == -32601, unknown
    assert running.request("shutdown") is None
    late = running.answer(running.start("textDocument/inlineCompletion", inline("file:///x.py")))
    assert late["error"]["code"] == -32600, late
