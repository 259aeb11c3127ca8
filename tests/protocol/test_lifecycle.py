"""How a session ends, and the exit code it ends with."""

import server
from server import inline


def begun(start, **settings) -> server.Server:
    """A session without a model."""
    running = start(**{"model": "/no/such/model.gguf", **settings})
    running.initialize()
    return running


def test_shutdown_and_exit(start):
    running = begun(start)
    assert running.request("shutdown") is None
    running.notify("exit")
    assert running.wait() == 0


def test_exit_without_shutdown(start):
    running = begun(start)
    running.notify("exit")
    assert running.wait() == 1


def test_exit_before_anything(start):
    running = start()
    running.notify("exit")
    assert running.wait() == 1


def test_the_client_is_gone(start):
    running = begun(start)
    running.process.stdin.close()
    assert running.wait() in (0, 1)


def test_shutdown_in_the_middle_of_computing(real):
    uri = real.open("x = [\n" + "".join(f"    {n * 31 % 97},\n" for n in range(500)), uri="file:///home/me/l.py")
    id = real.start("textDocument/inlineCompletion", inline(uri, {"line": 501, "character": 0}))
    assert real.request("shutdown") is None
    assert len(real.until(lambda: real.answers.get(id), "answer to what was running")) == 1
    real.notify("exit")
    assert real.wait() == 0


def test_exit_in_the_middle_of_computing(real):
    uri = real.open("x = [\n" + "".join(f"    {n * 31 % 97},\n" for n in range(500)), uri="file:///home/me/l.py")
    real.start("textDocument/inlineCompletion", inline(uri, {"line": 501, "character": 0}))
    real.notify("exit")
    assert real.wait() == 1


def test_nothing_but_the_protocol_on_standard_output(real):
    real.request("textDocument/inlineCompletion", inline(real.open()))
    assert real.broken is None
