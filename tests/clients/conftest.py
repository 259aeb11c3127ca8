"""A home without anybody's settings, a server on its PATH that can be listened to, and editors in a terminal."""

import json
import os
import pathlib
import subprocess

import pytest

from conversation import Conversation
from terminal import Terminal

HERE = pathlib.Path(__file__).parent


class Bench:
    """A folder to work in, and what an editor started there says to the server."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.home = folder / "home"
        self.conversation = Conversation(folder / "said")
        self._terminals = []
        programs = folder / "bin"
        programs.mkdir()
        (programs / "gemma-ls").symlink_to(HERE / "tap.py")
        settings = {"model": required("GEMMA_LS_TEST_MODEL"), "maxTimeMs": 100_000}
        self.configure("gemma-ls/config.json", json.dumps(settings))
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_DATA_HOME": str(self.home / ".local/share"),
            "XDG_STATE_HOME": str(self.home / ".local/state"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "GEMMA_LS_BIN": required("GEMMA_LS_BIN"),
            "GEMMA_LS_TAP": str(self.conversation.log),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
        }
        # As a project, with a root that every editor finds.
        self.project = folder / "project"
        self.project.mkdir()
        subprocess.run(["git", "init", "--quiet", self.project], check=True)

    def configure(self, path: str, text: str) -> pathlib.Path:
        """Writes a file below ~/.config."""
        file = self.home / ".config" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def file(self, name: str, text: str) -> pathlib.Path:
        """Writes a file of the project."""
        file = self.project / name
        file.write_text(text)
        return file

    def run(self, *command) -> Terminal:
        """Starts an editor in the project's folder."""
        self._terminals.append(Terminal([str(part) for part in command], self.environment, self.project))
        return self._terminals[-1]

    def close(self):
        """Ends what still runs."""
        for terminal in self._terminals:
            terminal.close()


@pytest.fixture
def bench(tmp_path):
    """A bench, cleared afterwards."""
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def pytest_terminal_summary(terminalreporter):
    """Says loudly, and why, which tests were tried a second time: it is either they or gemma-ls that is not firm enough."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"FAILED AT THE FIRST TRY: {report.nodeid}", red=True)
        terminalreporter.write_line(report.longreprtext)


def editors() -> pathlib.Path:
    """Where the editors are that `tests/clients/run` brought."""
    return pathlib.Path(required("GEMMA_LS_EDITORS"))


def saved(file: pathlib.Path) -> str:
    """What is in a file; nothing while the editor puts a new one in its place."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def required(name: str) -> str:
    """A path that the environment names."""
    assert os.environ.get(name), f"{name} is not set; README.md says what it is"
    return str(pathlib.Path(os.environ[name]).resolve())
