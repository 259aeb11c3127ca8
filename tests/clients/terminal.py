"""A program in a terminal: keys go in, a screen can be looked at."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import pyte

# How long anything may take before it counts as hanging: far longer than any should.
PATIENCE = 120.0
# How long a key may take before it counts as missed.
FIRST_TRY = 10.0
LINES, COLUMNS = 30, 120
# Questions about the terminal, which pyte would print.
DEVICE_CONTROL = re.compile(rb"\x1bP.*?\x1b\\", re.DOTALL)


class Screen(pyte.Screen):
    """A screen that leaves private questions about the terminal unanswered, where pyte would stumble."""

    def report_device_status(self, mode, private=False):
        if not private:
            super().report_device_status(mode)


class Terminal:
    """A program at the other end of a pseudo-terminal, and what it has drawn."""

    def __init__(self, command: list, environment: dict, folder):
        self.screen = Screen(COLUMNS, LINES)
        self.screen.write_process_input = self.type
        self._stream = pyte.ByteStream(self.screen)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
            os.execve(command[0], command, {**environment, "TERM": "linux"})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._ended = False
        self._held = b""

    def type(self, keys):
        """Types keys: text, or the bytes that a key sends."""
        os.write(self.fd, keys.encode() if isinstance(keys, str) else keys)

    def until(self, done, what, patience: float = PATIENCE):
        """Waits until `done()` gives something, and returns it; `what`, a text or what makes one, is for the message."""
        found = self._wait(done, patience)
        assert found, f"no {what() if callable(what) else what} after {patience} s:\n{self.text()}"
        return found

    def insist(self, keys, done, what: str, again=None):
        """Types keys until `done()` gives something, and returns it: for what an editor may miss while it is busy.

        They are typed once more when nothing came of them for long, each time for longer; `again` is what is typed then,
        where it is not the same.
        """
        deadline = time.monotonic() + PATIENCE
        patience = FIRST_TRY
        self.type(keys)
        while not (found := self._wait(done, patience)):
            assert time.monotonic() < deadline, f"no {what} after {PATIENCE} s and several tries:\n{self.text()}"
            self.type(keys if again is None else again)
            patience = min(2 * patience, max(deadline - time.monotonic(), FIRST_TRY))
        return found

    def _wait(self, done, patience: float):
        """What `done()` gives as soon as it is something; what it gives at the end of the patience."""
        deadline = time.monotonic() + patience
        while not (found := done()) and time.monotonic() < deadline:
            assert not self._ended, f"the editor ended:\n{self.text()}"
            self._read()
        return found

    def shows(self, text: str):
        """Waits until a text is on the screen."""
        self.until(lambda: text in self.text(), f"{text!r} on the screen")

    def text(self) -> str:
        """The screen, without the blanks at the ends of lines. What follows a wide character's first cell is left out."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def close(self):
        """Ends the program, whatever it does, and what it started."""
        if not self._ended:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        os.close(self.fd)
        os.waitpid(self.pid, 0)

    def _read(self):
        if not select.select([self.fd], [], [], 0.05)[0]:
            return
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # How Linux says that the other end is closed.
            data = b""
        if not data:
            self._ended = True
        data = DEVICE_CONTROL.sub(b"", self._held + data)
        # A sequence whose end is still to come waits for it.
        begin = data.find(b"\x1bP")
        self._held = data[begin:] if begin >= 0 else b""
        self._stream.feed(data[:begin] if begin >= 0 else data)
