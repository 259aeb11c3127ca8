"""What a keystroke costs: nothing where the answer is there or on its way, and what is new elsewhere."""

import time

import server
from server import CURSOR, SAMPLE, inline, items

# A document whose prompt takes a while to read.
LONG = "\n".join(f"def step_{n}(value_{n}):\n    return value_{n} * {n * 7919 % 1000} + {n}\n" for n in range(400))
INSIDE = {"line": 601, "character": 11}


def asked(running, uri: str, position: dict) -> tuple[list, dict]:
    """The items of an inline completion, and what it cost."""
    result = running.request("textDocument/inlineCompletion", inline(uri, position))
    return items(result), result["gemma"]


def behind(position: dict, text: str) -> dict:
    """The place behind a text of one line that was typed at a place."""
    return {**position, "character": position["character"] + len(text)}


def idle(running) -> dict:
    """What the server says of itself once nothing is computed any more."""
    deadline = time.monotonic() + server.PATIENCE
    while (status := running.status())["engine"]["running"] + status["engine"]["ahead"] > 0:
        assert time.monotonic() < deadline, "it computes on and on"
        time.sleep(0.02)
    return status


def prompt_tokens(running) -> int:
    """The tokens of all prompts that were computed for requests or found."""
    cache = idle(running)["completions"]["cache"]
    return cache["computedTokens"] + cache["foundTokens"]


def test_an_answer_says_what_it_cost(real):
    uri = real.open()
    shown, cost = asked(real, uri, CURSOR)
    assert shown and cost["reason"] == "shown" and cost["rule"] is None
    assert cost["tokensAsked"] == cost["tokensFound"] + cost["tokensComputed"] > 0
    assert 0 < cost["decodePasses"] <= cost["decodeTokens"] + 1
    assert 0 <= cost["queueMs"] <= cost["firstTokenMs"] <= cost["totalMs"]
    last = real.status()["completions"]["last"]
    assert all(last[name] == value for name, value in cost.items()), (last, cost)

    again, cost = asked(real, uri, CURSOR)
    assert [item["insertText"] for item in again] == [item["insertText"] for item in shown]
    assert cost["rule"] == "reuse" and cost["tokensAsked"] is None and cost["firstTokenMs"] == cost["totalMs"]


def test_a_place_where_the_cursor_rests_is_read_before_anybody_asks(real):
    uri = real.open(LONG)
    real.notify("gemma/didMoveCursor", {"textDocument": {"uri": uri}, "position": INSIDE})
    deadline = time.monotonic() + server.PATIENCE
    while (ahead := real.status()["completions"]["ahead"])["computedTokens"] < 200:
        assert time.monotonic() < deadline, ahead
        time.sleep(0.02)
    status = idle(real)
    assert status["completions"]["requested"] == status["completions"]["cache"]["computedTokens"] == 0
    _, cost = asked(real, uri, INSIDE)
    assert cost["tokensComputed"] <= 2 < 200 <= cost["tokensAsked"]


def test_a_cursor_in_no_document_moves_nothing(real):
    for params in [
        {"textDocument": {"uri": "file:///never/opened.py"}, "position": CURSOR},
        {"textDocument": {"uri": 3}},
        {},
        None,
    ]:
        real.notify("gemma/didMoveCursor", params)
    uri = real.open()
    far = {"line": 2**31 - 1, "character": 2**31 - 1}
    real.notify("gemma/didMoveCursor", {"textDocument": {"uri": uri}, "position": far})
    assert asked(real, uri, CURSOR)[0]


def test_typing_along_a_suggestion_that_is_being_computed_computes_nothing_new(start):
    running = start(model=server.model(), aheadOfTime=False, **server.UNHURRIED)
    running.initialize()
    running.ready()
    whole = asked(running, running.open(uri="file:///home/me/first/sample.py"), CURSOR)[0][0]["insertText"]
    before = prompt_tokens(running)

    uri = running.open(uri="file:///home/me/second/sample.py")
    requests = [running.start("textDocument/inlineCompletion", inline(uri, CURSOR))]
    typed = whole[:3]
    with running.at_once():
        for n, letter in enumerate(typed):
            running.change(uri, 2 + n, letter, at=behind(CURSOR, typed[:n]))
            place = behind(CURSOR, typed[: n + 1])
            requests.append(running.start("textDocument/inlineCompletion", inline(uri, place)))
    results = [running.answer(id)["result"] for id in requests]
    assert [item["insertText"] for item in results[-1]["items"]] == [whole[3:]]
    assert results[-1]["gemma"]["rule"] in ("running", "reuse")
    one = [result["gemma"]["tokensAsked"] for result in results if result["gemma"]["tokensAsked"]]
    assert prompt_tokens(running) - before == one[0], "one prompt, whoever asked"
    assert len(one) == 1


def test_a_backspace_is_served_from_what_was_suggested(real):
    uri = real.open()
    shown = asked(real, uri, CURSOR)[0][0]["insertText"]
    typed = shown[:2] + "~"
    real.change(uri, 2, typed, at=CURSOR)
    asked(real, uri, behind(CURSOR, typed))
    real.change(uri, 3, "", at=behind(CURSOR, typed[:2]), end=behind(CURSOR, typed))
    rest, cost = asked(real, uri, behind(CURSOR, typed[:2]))
    assert [item["insertText"] for item in rest] == [shown[2:]]
    assert cost["rule"] == "reuse" and cost["tokensAsked"] is None


def test_what_follows_is_prepared_while_a_suggestion_is_on_the_screen(real):
    uri = real.open(SAMPLE)
    shown = asked(real, uri, CURSOR)[0][0]["insertText"]
    before = idle(real)["completions"]
    assert before["ahead"]["computedTokens"] + before["ahead"]["foundTokens"] > 0
    real.change(uri, 2, shown, at=CURSOR)
    accepted = {"line": CURSOR["line"] + shown.count("\n"), "character": len((" " * CURSOR["character"] + shown).rsplit("\n", 1)[-1])}
    _, cost = asked(real, uri, accepted)
    # Nothing may follow: then that is found out once more, from a prompt that was read.
    assert cost["rule"] == "reuse" or cost["tokensComputed"] <= 2, cost
