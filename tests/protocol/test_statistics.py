"""What is shown and accepted is counted, by several servers in one file, and nothing is kept but numbers."""

import json

import server
from server import inline, items


def loaded(start_in, data, **settings):
    """A session with the real model, whose statistics lie in a folder of the test."""
    running = start_in({"XDG_DATA_HOME": str(data)}, model=server.model(), **server.UNHURRIED, **settings)
    running.initialize()
    return running.ready()


def suggestion(running) -> dict:
    """The best suggestion in the sample; who asks for one by hand may get others behind it."""
    item, *_ = items(running.request("textDocument/inlineCompletion", inline(running.open(), kind=1)))
    return item


def test_two_servers_count_together(start_in, tmp_path):
    data = tmp_path / "shared"
    first, second = (loaded(start_in, data) for _ in range(2))
    text = suggestion(first)["insertText"]
    for running in (first, second):
        argument = suggestion(running)["command"]["arguments"][0]
        running.notify("gemma/didShowCompletion", {"id": argument["id"]})
        running.notify("gemma/didAcceptCompletion", {**argument, "kind": "word", "text": text[:1]})
        assert running.request("workspace/executeCommand", suggestion(running)["command"]) is None
    for running in (first, second):
        running.request("shutdown")
        running.notify("exit")
        assert running.wait() == 0
    (file,) = data.glob("**/statistics.json")
    kept = json.loads(file.read_text())
    python = kept["languages"]["python"]
    assert kept["shown"] == python["shown"] == kept["accepted"] == python["accepted"] == kept["words"] == 2
    # Of a suggestion of one character nothing is left behind its first.
    assert kept["wholes"] == (2 if len(text) > 1 else 0)
    assert kept["characters"] == python["characters"] == 2 * len(text)


def test_a_restarted_server_takes_no_old_id_for_one_of_its_own(start_in, tmp_path):
    before = loaded(start_in, tmp_path / "shared")
    old = suggestion(before)["command"]["arguments"][0]
    before.close()
    after = loaded(start_in, tmp_path / "shared")
    suggestion(after)
    after.notify("gemma/didShowCompletion", {"id": old["id"]})
    after.notify("gemma/didAcceptCompletion", old)
    assert after.request("gemma/statistics", {})["shown"] == 0


def test_who_switches_it_off_is_not_counted(start_in, tmp_path):
    running = loaded(start_in, tmp_path / "shared", statistics=False)
    assert "command" not in suggestion(running)
    running.request("shutdown")
    running.notify("exit")
    running.wait()
    assert not list((tmp_path / "shared").glob("**/statistics.json"))
