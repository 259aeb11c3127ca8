"""What users of such tools complain about, tried on the shipped binary from outside; and that the table of these
complaints in editors/README.md names tests that exist."""

import pathlib
import re
import shutil
import time

import pytest

import server
from server import CURSOR, SAMPLE, inline, items

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "editors" / "README.md"
COMPLAINTS = 15

CONTROL = ["<|fim", "<|file_separator|>", "<start_of_turn>", "<end_of_turn>", "<eos>", "<bos>", "<pad>", "<unk>", "<unused"]


def asked(running, uri: str, **how) -> list:
    """The items of an inline completion."""
    return items(running.request("textDocument/inlineCompletion", inline(uri, **how)))


def menu(running, uri: str, position: dict = CURSOR) -> dict:
    """A completion menu."""
    return running.request("textDocument/completion", {"textDocument": {"uri": uri}, "position": position})


def last(running) -> dict:
    """How the latest completion ended."""
    return running.status()["completions"]["last"]


def idle(running) -> dict:
    """What the server says of itself once nothing is computed any more."""
    deadline = time.monotonic() + server.PATIENCE
    while (status := running.status())["engine"]["running"] > 0:
        assert time.monotonic() < deadline, "it computes on and on"
        time.sleep(0.02)
    return status


def prompt_tokens(running, uri: str, **how) -> int:
    """How many tokens the model reads for a completion."""
    assert asked(running, uri, **how), last(running)
    timings = last(running)["timings"]
    return timings["prefill_tokens"] + timings["cached_tokens"]


# 1. Separator or control tokens are shown.


@pytest.mark.parametrize("token", CONTROL[:4])
def test_control_tokens_in_a_text_are_text_and_none_is_shown(real, token):
    text = f"# {token} separates what the model reads.\nseparator = '{token}'\nprint(separator)\n\nprint("
    uri = real.open(text, uri=f"file:///home/me/tokens{len(token)}.py")
    found = asked(real, uri, position={"line": 4, "character": 6}, kind=1)
    shown = "".join(item["insertText"] for item in found)
    # The text's own may be copied; no other may come.
    assert not any(other in shown.replace(token, "") for other in CONTROL), shown


# 3. Slow machines need control over when something is computed.


def test_nothing_is_computed_that_nobody_asked_for(start):
    running = start(model=server.model(), aheadOfTime=False, **server.UNHURRIED)
    running.initialize()
    running.ready()
    uri = running.open()
    running.notify("gemma/didMoveCursor", {"textDocument": {"uri": uri}, "position": CURSOR})
    for version, letter in enumerate("fibonacci", start=2):
        running.change(uri, version, letter, at={"line": CURSOR["line"], "character": CURSOR["character"] + version - 2})
    running.notify("textDocument/didSave", {"textDocument": {"uri": uri}})
    status = running.status()
    assert status["engine"]["running"] == status["engine"]["ahead"] == 0
    completions = status["completions"]
    assert completions["requested"] == completions["cache"]["computedTokens"] == completions["ahead"]["computedTokens"] == 0


@pytest.mark.parametrize(("limit", "fewest", "most"), [(100_000, 40, 120), (10, 0, 39)])
def test_a_time_limit_holds(start, limit, fewest, most):
    running = start(model=server.model(), maxTimeMs=limit, maxTokens=120, multiLine="always")
    running.initialize()
    running.ready()
    text = "# The numbers from 1 to 5000, one on each line.\n" + "".join(f"# {n}\n" for n in range(1, 30))
    asked(running, running.open(text), position={"line": text.count("\n"), "character": 0}, kind=1)
    assert fewest <= last(running)["timings"]["decode_tokens"] <= most
    assert idle(running)["completions"]["requested"] == 1


# 4. "Disabled" still runs.


@pytest.mark.parametrize(
    ("off", "rule"),
    [
        ({"languagesOff": ["python"]}, "languagesOff"),
        ({"filesOff": ["**/*.py"]}, "filesOff"),
        ({"trigger": "manual", "aheadOfTime": False}, "trigger"),
    ],
)
def test_what_is_off_computes_nothing_not_even_when_a_file_is_opened(start, off, rule):
    running = start(model=server.model(), **server.UNHURRIED, **off)
    running.initialize()
    running.ready()
    uri = running.open()
    running.change(uri, 2, "f", at=CURSOR)
    place = {**CURSOR, "character": CURSOR["character"] + 1}
    assert asked(running, uri, position=place) == []
    status = running.status()
    assert status["completions"]["disabled"] == 1 and status["completions"]["last"]["rule"] == rule
    assert status["engine"]["running"] == status["engine"]["ahead"] == 0
    assert status["completions"]["cache"]["computedTokens"] == status["completions"]["ahead"]["computedTokens"] == 0


# 5. Nothing is shown, and nobody can say why.


def test_every_answer_has_a_sentence_that_says_why(start):
    running = start(model=server.model(), languagesOff=["markdown"], **server.UNHURRIED)
    running.initialize()
    said = set()

    def why(uri, **how):
        asked(running, uri, **how)
        outcome = last(running)
        assert outcome["sentence"].endswith("."), outcome
        said.add(outcome["sentence"])
        return outcome["reason"]

    running.ready()
    assert why(running.open()) == "shown"
    assert why(running.open("# T\n", "file:///home/me/a.md", "markdown")) == "disabled"
    assert why(running.open("A=", "file:///home/me/.env", "plaintext")) == "disabled"
    assert why("file:///home/me/never-opened.py") == "empty"
    assert len(said) == 4, said
    off = running.request("gemma/status", {"textDocument": {"uri": "file:///home/me/a.md"}})["document"]
    assert off["off"] == "languagesOff" and "language" in off["sentence"]


# 8. Secrets are sent as context.


def test_an_open_secret_is_no_context_of_another_file(real):
    text = "def connect():\n    token = read_token()\n    return open_connection(token)\n\nconnection = "

    def tokens(folder: str) -> int:
        """The tokens of a prompt in a document that nothing was shown of before."""
        uri = real.open(text, uri=f"file:///home/me/{folder}/app.py")
        count = prompt_tokens(real, uri, position={"line": 4, "character": 13}, kind=1)
        real.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        return count

    alone = tokens("alone")
    more = "def read_token():\n    return 'connect_token'\n\n\ndef open_connection(token):\n    return connect(token)\n"
    real.open(more, uri="file:///home/me/.env.py", language="python")
    real.open(more, uri="file:///home/me/.env", language="plaintext")
    assert tokens("secrets") == alone
    # The same text in a file that is none is context: the counts can tell.
    real.open(more, uri="file:///home/me/helpers.py")
    assert tokens("helpers") > alone + 10


# 9. Extra characters after a fast accept, 10. stale menu items.


def test_an_accepted_suggestion_is_not_given_again(real):
    uri = real.open()
    first = asked(real, uri)[0]
    real.change(uri, 2, first["insertText"], at=first["range"]["start"], end=first["range"]["end"])
    line = SAMPLE.split("\n")[CURSOR["line"]] + first["insertText"]
    place = {"line": CURSOR["line"] + line.count("\n"), "character": len(line.split("\n")[-1])}
    for item in asked(real, uri, position=place):
        assert item["insertText"] != first["insertText"]
        assert item["range"]["start"] == place, "what was accepted would be replaced"


@pytest.mark.parametrize("method", ["textDocument/inlineCompletion", "textDocument/completion"])
def test_an_answer_is_never_for_an_older_text(real, method):
    """The line changes before the answer is computed: what it replaces is what stands there by then."""
    uri = real.open()
    now = SAMPLE.split("\n")[CURSOR["line"]]
    begin = {**CURSOR, "character": 0}
    for version in range(2, 8, 2):
        # Never twice the same, so that no answer is there already.
        older, newer = f"    value_{version} = fibo", f"    return fibonacci({version}) + fibonacci({version * 7}) * "
        with real.at_once():
            real.change(uri, version, older, at=begin, end={**CURSOR, "character": len(now)})
            id = real.start(method, inline(uri, {**CURSOR, "character": len(older)}))
            real.change(uri, version + 1, newer, at=begin, end={**CURSOR, "character": len(older)})
        for item in items(real.answer(id)["result"]):
            edit = item.get("textEdit") or {"range": item["range"], "newText": item["insertText"]}
            start, end = (edit["range"][side]["character"] for side in ("start", "end"))
            assert start <= end <= len(newer), (newer, edit)
            assert edit["newText"].startswith(newer[start:end]), (newer, edit)
        now = newer


def test_a_menu_is_asked_again_while_typing_and_keeps_what_was_typed(real):
    uri = real.open()
    before = menu(real, uri)
    assert before["isIncomplete"] is True and before["items"], last(real)
    word = re.match(r"\w*", before["items"][0]["textEdit"]["newText"])[0][:3]
    assert word, "the sample is to suggest a word"
    real.change(uri, 2, word, at=CURSOR)
    after = menu(real, uri, {**CURSOR, "character": CURSOR["character"] + len(word)})
    for item in after["items"]:
        assert item["filterText"].startswith(word)
        assert item["textEdit"]["newText"].startswith(word)
        assert item["textEdit"]["range"]["start"] == CURSOR


# 12. Deleting triggers suggestions.


def test_deleting_what_was_typed_computes_nothing_new(real):
    uri = real.open()
    text = asked(real, uri)[0]["insertText"]
    real.change(uri, 2, text[0], at=CURSOR)
    typed = {**CURSOR, "character": CURSOR["character"] + 1}
    asked(real, uri, position=typed)
    computed = idle(real)["completions"]["computed"]
    real.change(uri, 3, "", at=CURSOR, end=typed)
    assert [item["insertText"] for item in asked(real, uri)] == [text]
    assert idle(real)["completions"]["computed"] == computed


# 14. The chat's model drives the completion's model out.


def test_a_chat_with_another_model_leaves_the_completion_as_it_was(start, tmp_path):
    other = tmp_path / "other.gguf"
    shutil.copyfile(server.model(), other)
    running = start(model=server.model(), chatModel=str(other), **server.UNHURRIED)
    running.initialize()
    running.ready()
    uri = running.open()
    text = asked(running, uri)[0]["insertText"]
    weights = running.status()["model"]["weightBytes"]
    question = {"chatId": "c", "question": "What is this?", "textDocument": {"uri": uri}, "maxTokens": 8}
    assert running.request("gemma/chat", question)["model"] == "other"
    status = running.status()
    assert status["model"]["state"] == status["chat"]["state"] == "ready"
    assert status["model"]["weightBytes"] == weights and status["chat"]["name"] == "other"
    # What was read for the completion is still there.
    running.change(uri, 2, "(", at=CURSOR)
    asked(running, uri, position={**CURSOR, "character": CURSOR["character"] + 1}, kind=1)
    timings = last(running)["timings"]
    assert timings["cached_tokens"] > timings["prefill_tokens"], timings
    running.change(uri, 3, "", at=CURSOR, end={**CURSOR, "character": CURSOR["character"] + 1})
    assert [item["insertText"] for item in asked(running, uri)] == [text]


# The table


def rows() -> list:
    """The rows of the table: number, complaint, what is done, tests."""
    found = re.findall(r"^\| *(\d+) *\|(.*)\|(.*)\|(.*)\|$", README.read_text(), re.MULTILINE)
    return [(int(number), complaint.strip(), answer.strip(), tests.strip()) for number, complaint, answer, tests in found]


def test_the_table_has_every_complaint_with_an_answer_and_a_test():
    assert [number for number, *_ in rows()] == list(range(1, COMPLAINTS + 1))
    for number, complaint, answer, tests in rows():
        assert complaint and answer, number
        assert re.search(r"\[`[^`]+`\]\([^)]+\)", tests), f"complaint {number} names no test"


def test_each_test_that_the_table_names_exists():
    for number, _, _, tests in rows():
        for name, target in re.findall(r"\[`([^`]+)`\]\(([^)]+)\)", tests):
            file = (README.parent / target).resolve()
            assert file.is_file(), f"complaint {number}: there is no {target}"
            text = file.read_text()
            # A function, a title, or the name of a golden case.
            titles = [f"fn {name}(", f"def {name}(", f"'{name}'", f'"{name}"', f"`{name}`", f"=== {name}\n", f"cases.{name}("]
            assert any(title in text for title in titles), f"complaint {number}: {target} has no test {name!r}"
