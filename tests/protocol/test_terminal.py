"""A conversation at a terminal: `gemma-ls chat` as a person uses it, by a pseudo-terminal."""

import os
import pty
import re
import select
import signal
import time

import pytest

import server

PROMPT = rb"\r\x1b\[K> \r"


class Terminal:
    """The binary at the other end of a terminal."""

    def __init__(self, folder, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            environment = {**server.environment(folder), "TERM": "xterm-256color"}
            os.execve(server.binary(), [server.binary(), *arguments], environment)
        self.code = None

    def type(self, keys):
        os.write(self.fd, keys)

    def until(self, pattern):
        """Everything shown up to this pattern."""
        shown = b""
        end = time.monotonic() + server.PATIENCE
        while not re.search(pattern, shown, re.DOTALL):
            assert time.monotonic() < end, f"{pattern} is not shown: {shown}"
            if select.select([self.fd], [], [], 0.1)[0]:
                shown += os.read(self.fd, 1 << 16)
        return shown

    def wait(self):
        """The exit code."""
        while True:
            try:
                if not os.read(self.fd, 1 << 16):
                    break
            except OSError:  # How Linux says that the other end is closed.
                break
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def close(self):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def chat(tmp_path):
    """A conversation about a file, up to its first prompt."""
    (tmp_path / "half.py").write_text("def half(n):\n    return n / 2\n")
    terminal = Terminal(tmp_path, "chat", "half.py", "--model", server.model(), "-n", "1000", "-v")
    terminal.until(PROMPT)
    yield terminal
    terminal.close()


def test_a_question_is_answered_and_ctrl_d_ends(chat):
    chat.type(b"What is half(4)?\r")
    assert re.search(rb"[1-9]\d* written", chat.until(rb"tokens reused.*" + PROMPT))
    chat.type(b"\x04")
    assert chat.wait() == 0


def test_ctrl_c_stops_the_answer_then_drops_the_line_and_ends_nothing(chat):
    chat.type(b"Write a very long story about half.\r")
    # Pasting is switched off when the line is done; what comes then is the answer.
    chat.until(rb"\x1b\[\?2004l\r\n.*\w+ \w+")
    chat.type(b"\x03")
    stopped = chat.until(rb"tokens reused.*" + PROMPT)
    assert int(re.search(rb"(\d+) written", stopped)[1]) < 1000
    chat.type(b"half a thought\x03")
    chat.until(rb"/quit ends.*" + PROMPT)
    chat.type(b"/quit\r")
    assert chat.wait() == 0


def test_a_pasted_text_is_one_question_and_comes_back_from_the_history(chat):
    chat.type(b"\x1b[200~What\nis\nthis?\x1b[201~\r")
    assert chat.until(rb"tokens reused.*" + PROMPT).count(b"tokens reused") == 1
    chat.type(b"\x1b[A")
    chat.until(rb"What\r\n.*is\r\n.*this\?")
    chat.type(b"\x03")
    chat.until(PROMPT)
    chat.type(b"/file no.py\r")
    chat.until(rb"no\.py: there is no such file.*" + PROMPT)
    chat.type(b"\x04")
    assert chat.wait() == 0
