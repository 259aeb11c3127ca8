"""What the server says beyond the protocol's own methods, but for chat, models and statistics: status, commands, code actions."""

import itertools

import pytest

import server
from server import inline

SELECTION = {"start": {"line": 0, "character": 0}, "end": {"line": 4, "character": 30}}
EMPTY = {"start": SELECTION["end"], "end": SELECTION["end"]}
ERROR = {"range": EMPTY, "severity": 1, "message": "invalid syntax", "source": "pyflakes"}


def session(start, ours: dict, **settings) -> tuple[server.Server, dict]:
    """A session of a client that can what ours says, and takes code actions; with what the server can."""
    running = start(**settings)
    kinds = {"codeActionKind": {"valueSet": ["quickfix", "refactor"]}}
    capabilities = {
        "textDocument": {"codeAction": {"codeActionLiteralSupport": kinds}},
        "experimental": {"gemma": ours},
    }
    result = running.initialize(capabilities=capabilities)
    return running, result["capabilities"]


def actions(running, uri: str, range: dict, **context) -> list:
    """The code actions for a range."""
    context = {"diagnostics": [], **context}
    return running.request("textDocument/codeAction", {"textDocument": {"uri": uri}, "range": range, "context": context})


def test_the_status_is_told_from_loading_to_working(start):
    running, _ = session(start, {"status": True}, model=server.model(), **server.UNHURRIED)

    def told(state: str) -> list:
        return [told for told in running.said("gemma/didChangeStatus") if told["state"] == state]

    ready = running.until(lambda: told("ready"), "announcement that it is ready")[0]
    assert ready["model"] in ready["message"] and ready["device"]
    assert running.said("gemma/didChangeStatus")[0]["state"] == "loading"
    uri = running.open()
    versions = itertools.count(2)

    def worked() -> list:
        # What is over before the next announcement is due is not told of: ask until something is.
        version = next(versions)
        running.change(uri, version, f"# {version}\n{server.SAMPLE}")
        place = {**server.CURSOR, "line": server.CURSOR["line"] + 1}
        running.request("textDocument/inlineCompletion", inline(uri, place, kind=1))
        return told("working")

    running.until(worked, "announcement that it works")
    running.until(lambda: running.said("gemma/didChangeStatus")[-1] == ready, "announcement that it is ready again")


def test_a_failed_load_is_told(start):
    running, _ = session(start, {"status": True}, model="/no/such/model")
    said = running.until(lambda: [told for told in running.said("gemma/didChangeStatus") if told["state"] == "failed"], "failure")
    assert "/no/such/model" in said[-1]["error"] and "\n" not in said[-1]["message"]


@pytest.mark.parametrize(
    "name, language, off",
    [("a.py", "python", None), ("a.md", "markdown", "languagesOff"), ("vendor/a.py", "python", "filesOff"), (".env", "shellscript", "secretFiles")],
)
def test_the_status_says_why_a_document_is_off(start, name, language, off):
    running, _ = session(start, {}, model="/none", languagesOff=["markdown"], filesOff=["**/vendor/**"])
    uri = running.open(uri=f"file:///home/me/{name}", language=language)
    document = running.request("gemma/status", {"textDocument": {"uri": uri}})["document"]
    assert document["off"] == off and (document["sentence"] is None) == (off is None)
    running.request("textDocument/inlineCompletion", inline(uri))
    last = running.status()["completions"]["last"]
    assert off is None or last["sentence"] == document["sentence"]


def test_code_actions_carry_questions(start):
    running, can = session(start, {}, model="/none")
    assert "quickfix" in can["codeActionProvider"]["codeActionKinds"]
    uri = running.open()
    offered = actions(running, uri, SELECTION, diagnostics=[ERROR])
    questions = [action["command"]["arguments"][0] for action in offered]
    assert [question["kind"] for question in questions] == ["explain", "fix", "explain", "document", "fix", "tests"]
    assert all(action["command"]["command"] == "gemma.ask" for action in offered)
    assert all(question["textDocument"] == {"uri": uri} and question["selection"] == SELECTION for question in questions)
    assert [question.get("diagnostics") for question in questions] == [[ERROR]] * 2 + [None] * 4
    assert actions(running, uri, EMPTY) == []
    assert len(actions(running, uri, EMPTY, diagnostics=[ERROR], only=["quickfix"])) == 2
    assert actions(running, uri, EMPTY, diagnostics=[ERROR], only=["source"]) == []
    secret = running.open("TOKEN=1", uri="file:///home/me/.env", language="shellscript")
    assert actions(running, secret, SELECTION, diagnostics=[ERROR]) == []


def test_every_request_is_a_command(start):
    running, can = session(start, {}, model="/none")
    commands = set(can["executeCommandProvider"]["commands"])
    for name in commands - {"gemma.ask"}:
        method = name.replace(".", "/")
        if method.startswith("gemma/did"):
            continue
        by_name = running.answer(running.start(method, {}))
        by_command = running.answer(running.start("workspace/executeCommand", {"command": name, "arguments": [{}]}))
        assert ("error" in by_name) == ("error" in by_command), name
        assert "error" not in by_name or by_name["error"]["code"] == by_command["error"]["code"] == -32602, by_name


def test_a_client_with_commands_of_its_own_is_offered_none(start):
    running, can = session(start, {"commands": True}, model="/none")
    assert "executeCommandProvider" not in can
    status = running.request("workspace/executeCommand", {"command": "gemma.status"})
    assert status["version"] == running.status()["version"]
