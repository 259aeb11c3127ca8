"""What settings switch on and off, how wrong ones are told, and life without a model."""

import pytest

import server
from server import inline, items


def asked(running, uri: str, **how) -> list:
    """The items of an inline completion."""
    return items(running.request("textDocument/inlineCompletion", inline(uri, **how)))


def reason(running) -> str:
    """Why the latest completion showed what it showed."""
    return running.status()["completions"]["last"]["reason"]


def told(running) -> str:
    """Everything that the server has told its user so far."""
    shown = running.said("window/showMessage") + running.said("window/logMessage")
    return "\n".join(params["message"] for params in shown)


@pytest.fixture
def loaded(start):
    """Starts a server with the real model and these settings, and waits for the model."""

    def begin(**settings):
        running = start(model=server.model(), **server.UNHURRIED, **settings)
        running.initialize()
        return running.ready()

    return begin


def test_a_language_that_is_off(loaded):
    running = loaded(languagesOff=["python"])
    assert asked(running, running.open()) == []
    assert reason(running) == "disabled"
    script = running.open("#!/bin/bash\nfor i in 1 2 3; do\n  echo ", uri="file:///home/me/a.sh", language="shellscript")
    assert asked(running, script, position={"line": 2, "character": 7})


def test_files_that_are_off(loaded):
    running = loaded(filesOff=["**/vendor/**"])
    assert asked(running, running.open(uri="file:///home/me/vendor/lib/a.py")) == []
    assert reason(running) == "disabled"
    assert asked(running, running.open(uri="file:///home/me/src/a.py"))


@pytest.mark.parametrize("name", [".env", ".env.local", "id_rsa", "server.pem"])
def test_secret_files_are_not_completed(loaded, name):
    running = loaded()
    uri = running.open("TOKEN=abc\nOTHER_TOKEN=", uri=f"file:///home/me/{name}", language="plaintext")
    place = {"line": 1, "character": 12}
    assert asked(running, uri, position=place) == []
    assert asked(running, uri, position=place, kind=1) == []
    assert reason(running) == "disabled"


def test_manual_means_only_when_asked(loaded):
    running = loaded(trigger="manual")
    uri = running.open()
    assert asked(running, uri, kind=2) == []
    assert reason(running) == "disabled"
    assert asked(running, uri, kind=1)


def test_settings_change_while_it_runs(loaded):
    running = loaded()
    uri = running.open()
    assert asked(running, uri)
    running.settings = {**running.settings, "languagesOff": ["python"]}
    running.notify("workspace/didChangeConfiguration", {"settings": {"gemma": running.settings}})
    running.until(lambda: not asked(running, uri), "end of suggestions")
    running.settings = {**running.settings, "languagesOff": []}
    running.notify("workspace/didChangeConfiguration", {"settings": {"gemma": running.settings}})
    running.until(lambda: asked(running, uri), "suggestion")


def test_wrong_settings_are_told_one_by_one_and_ignored(loaded):
    running = loaded(maxTokens="many", trigger="sometimes", maxTokns=3, languagesOff=["markdown", 7])
    assert asked(running, running.open())
    running.until(lambda: "maxTokns" in told(running), "word on wrong settings")
    text = told(running)
    for part in ["maxTokens", "many", "trigger", "sometimes", "maxTokns", "languagesOff"]:
        assert part in text, text


@pytest.mark.parametrize("options", [None, [], 7, "fast", {"maxTokens": {"a": [None]}}])
def test_settings_of_the_wrong_shape_leave_it_alive(start, options):
    running = start(model="/no/such/model.gguf")
    running.initialize(initializationOptions=options)
    assert running.status()


def test_without_its_model_it_lives_and_says_so(start):
    running = start(model="/no/such/model.gguf")
    running.initialize()
    running.until(lambda: "/no/such/model.gguf" in told(running), "word on the missing model")
    uri = running.open()
    assert asked(running, uri) == []
    assert running.status()["model"]["state"] == "failed"
    running.settings = {"model": server.model()}
    running.notify("workspace/didChangeConfiguration", {"settings": {"gemma": running.settings}})
    running.until(lambda: running.status()["model"]["state"] == "ready", "model")
    assert asked(running, uri)


def test_a_broken_model_is_told(start, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF, but not really")
    running = start(model=str(broken))
    running.initialize()
    running.until(lambda: "broken.gguf" in told(running), "word on the broken model")
    assert running.status()["model"]["state"] == "failed"


def test_while_loading_requests_are_answered(start):
    running = start(model=server.model())
    running.initialize()
    uri = running.open()
    asked(running, uri)
    running.ready()
    assert asked(running, uri)


def test_three_encodings_name_the_same_place(start):
    """A line with a character that has 4 bytes, 2 UTF-16 units and 1 code point, and one of 2, 1 and 1."""
    line = 'names = {"🦀": "crab", "é": "accent"}; total = 1 + '
    text = f"{line}\nprint(total)\n"
    lengths = {
        "utf-8": len(line.encode()),
        "utf-16": len(line.encode("utf-16-le")) // 2,
        "utf-32": len(line),
    }
    answers = {}
    for encoding, length in lengths.items():
        running = start(model=server.model(), maxTokens=12, **server.UNHURRIED)
        capabilities = {"general": {"positionEncodings": [encoding]}}
        result = running.initialize(capabilities=capabilities)
        assert result["capabilities"].get("positionEncoding", "utf-16") == encoding
        running.ready()
        uri = running.open(text)
        found = asked(running, uri, position={"line": 0, "character": length})
        for item in found:
            assert item["range"]["end"]["character"] <= length
        answers[encoding] = [item["insertText"] for item in found]
    assert answers["utf-8"] == answers["utf-16"] == answers["utf-32"]


def test_the_first_encoding_it_can_is_taken(start):
    for offered, taken in [
        (["utf-8", "utf-16"], "utf-8"),
        (["utf-32", "utf-16"], "utf-32"),
        (["utf-7", "utf-16"], "utf-16"),
        ([], "utf-16"),
    ]:
        running = start(model="/no/such/model.gguf")
        result = running.initialize(capabilities={"general": {"positionEncodings": offered}})
        assert result["capabilities"].get("positionEncoding", "utf-16") == taken, offered
