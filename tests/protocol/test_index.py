"""Files of the workspace that nobody has open: what they define is in the prompt, unless they are nobody's business."""

import time

import pytest

import server
from server import inline

LEXER = '''\
def tokenize(source, keep_comments=False):
    """Split a source text into tokens, one for each word, number, operator and line break."""
    tokens = []
    for line in source.splitlines():
        for word in line.split():
            tokens.append(("word", word))
        tokens.append(("break", None))
    return tokens
'''
MAIN = "def count(text):\n    found = tokenize(text)\n    return len(\n"
PLACE = {"line": 2, "character": 15}


@pytest.fixture
def project(tmp_path):
    """A workspace with one file that defines something."""
    folder = tmp_path / "project"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "lexer.py").write_text(LEXER)
    return folder


def session(start, folder, files: int, **settings) -> server.Server:
    """A session in a folder, the model loaded and so many files indexed."""
    running = start(model=server.model(), **server.UNHURRIED, **settings)
    running.initialize(workspaceFolders=[{"uri": folder.as_uri(), "name": "project"}])
    return indexed(running.ready(), files)


def indexed(running: server.Server, files: int) -> server.Server:
    """Waits until the index knows so many files and no more are to be read."""
    deadline = time.monotonic() + server.PATIENCE
    while (index := running.status()["index"]) != {"files": files, "indexing": False}:
        assert time.monotonic() < deadline, index
        time.sleep(0.02)
    return running


def asked(running: server.Server, folder, name: str = "main.py") -> int:
    """Completes in a document that uses the definition, and tells how many tokens the prompt had."""
    uri = running.open(MAIN, uri=(folder / name).as_uri())
    running.request("textDocument/inlineCompletion", inline(uri, PLACE))
    timings = running.status()["completions"]["last"]["timings"]
    return timings["prefill_tokens"] + timings["cached_tokens"]


def test_a_definition_in_a_file_that_is_not_open_is_in_the_prompt(start, project):
    alone = asked(session(start, project, 0, workspaceIndex=False), project)
    running = session(start, project, 1)
    # The function has more than 60 tokens.
    assert asked(running, project) > alone + 60
    # When it is open besides, it is not shown twice.
    running.open(LEXER, uri=(project / "lib" / "lexer.py").as_uri())
    assert alone + 60 < asked(running, project, "main2.py") < alone + 160
    assert alone + 60 < asked(running, project, "main3.py") < alone + 160


@pytest.mark.parametrize("rules", [{".gitignore": "lib/\n"}, {"lib/.gitignore": "*.py\n"}])
def test_ignored_files_are_not_read(start, project, rules):
    for name, rule in rules.items():
        (project / name).write_text(rule)
    alone = asked(session(start, project, 0, workspaceIndex=False), project)
    assert asked(session(start, project, 0), project) == alone


def test_secret_files_are_not_read(start, project):
    alone = asked(session(start, project, 0, workspaceIndex=False), project)
    running = session(start, project, 0, secretFiles=["lexer.*"])
    assert asked(running, project) == alone
    # Nor are those that become secret.
    running = session(start, project, 1)
    running.notify("workspace/didChangeConfiguration", {"settings": {"gemma": {"secretFiles": ["lib/"]}}})
    indexed(running, 0)
    assert asked(running, project) == alone


def test_a_file_that_changes_on_disk_is_read_again(start, project):
    running = session(start, project, 1)
    known = asked(running, project)
    (project / "lib" / "lexer.py").unlink()
    (project / "lib" / "other.py").write_text(LEXER.replace("keep_comments", "strict"))
    changes = [{"uri": (project / "lib" / name).as_uri(), "type": kind} for name, kind in [("lexer.py", 3), ("other.py", 1)]]
    running.notify("workspace/didChangeWatchedFiles", {"changes": changes})
    # One file is known before and after: ask until the other one is.
    indexed(running, 1)
    assert abs(asked(running, project, "main2.py") - known) < 20
    (project / "lib" / "other.py").unlink()
    running.notify("workspace/didChangeWatchedFiles", {"changes": changes})
    indexed(running, 0)
    assert asked(running, project, "main3.py") < known - 60
