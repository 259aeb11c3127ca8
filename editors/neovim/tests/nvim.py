"""A real Neovim behind its RPC, with the screen that it would draw.

The screen is what `nvim_ui_attach` with `ext_linegrid` reports: what a terminal would show, cell by cell,
with the highlight of each cell.
"""

import itertools
import os
import pathlib
import subprocess
import threading
import time

import msgpack

# How long anything may take before it counts as hanging: far longer than any should.
PATIENCE = float(os.environ.get("GEMMA_LS_TEST_PATIENCE", "120"))

# The colour that tests give to grey text, to tell it from everything else.
GREY = 0x123456

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Screen:
    """A grid of cells, kept up to date by the editor's `redraw` events."""

    def __init__(self, width: int, height: int):
        self.highlights = {0: {}}
        self.cursor = (0, 0)
        self.resize(width, height)

    def resize(self, width: int, height: int):
        self.width, self.height = width, height
        self.cells = [[(" ", 0)] * width for _ in range(height)]

    def apply(self, events: list):
        for name, *calls in events:
            handler = getattr(self, f"_on_{name}", None)
            for call in calls if handler else ():
                handler(*call)

    def _on_grid_resize(self, _grid, width, height):
        self.resize(width, height)

    def _on_grid_clear(self, _grid):
        self.resize(self.width, self.height)

    def _on_grid_cursor_goto(self, _grid, row, column):
        self.cursor = (row, column)

    def _on_hl_attr_define(self, number, attributes, *_):
        self.highlights[number] = attributes

    def _on_grid_line(self, _grid, row, column, cells, *_):
        highlight = 0
        for cell in cells:
            text = cell[0]
            highlight = cell[1] if len(cell) > 1 else highlight
            for _ in range(cell[2] if len(cell) > 2 else 1):
                self.cells[row][column] = (text, highlight)
                column += 1

    def _on_grid_scroll(self, _grid, top, bottom, left, right, rows, _columns):
        order = range(top, bottom - rows) if rows > 0 else range(bottom - 1, top - rows - 1, -1)
        for row in order:
            self.cells[row][left:right] = self.cells[row + rows][left:right]

    def line(self, row: int) -> str:
        """The text of a row; the second cell of a wide character holds nothing."""
        return "".join(text for text, _ in self.cells[row]).rstrip()

    def lines(self) -> list[str]:
        return [self.line(row) for row in range(self.height)]

    def text(self) -> str:
        return "\n".join(self.lines())

    def coloured(self, row: int, colour: int) -> str:
        """The text of a row that has this colour."""
        return "".join(
            text for text, number in self.cells[row] if self.highlights[number].get("foreground") == colour
        )

    def grey(self) -> str:
        """All grey text on the screen, row by row."""
        rows = (self.coloured(row, GREY) for row in range(self.height))
        return "\n".join(row for row in rows if row)


class Nvim:
    """A running editor."""

    def __init__(self, program: str, arguments=(), width=100, height=30, env=None, cwd=None):
        self.process = subprocess.Popen(
            [program, "--embed", "-n", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            cwd=cwd,
        )
        self.screen = Screen(width, height)
        self.errors = []
        self._answers = {}
        self._ids = itertools.count(1)
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()
        self.call("nvim_ui_attach", width, height, {"ext_linegrid": True, "rgb": True})
        for group in ("GemmaGhost", "ComplHint"):
            self.command(f"highlight {group} guifg=#{GREY:06x}")

    # Speaking

    def _read(self):
        unpacker = msgpack.Unpacker(raw=False, unicode_errors="replace", strict_map_key=False)
        while data := os.read(self.process.stdout.fileno(), 1 << 16):
            unpacker.feed(data)
            for message in unpacker:
                with self._changed:
                    if message[0] == 1:
                        self._answers[message[1]] = message[2:]
                    elif message[0] == 2 and message[1] == "redraw":
                        self.screen.apply(message[2])
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def call(self, method: str, *arguments):
        """Calls an API function and gives back its answer."""
        number = next(self._ids)
        self.process.stdin.write(msgpack.packb([0, number, method, list(arguments)]))
        self.process.stdin.flush()
        with self._changed:
            answered = self._changed.wait_for(lambda: number in self._answers or self._ended, PATIENCE)
            assert answered and number in self._answers, (
                f"no answer to {method}{arguments}\n{self.screen.text()}"
            )
            error, result = self._answers.pop(number)
        assert error is None, f"{method}{arguments}: {error}"
        return result

    def lua(self, code: str, *arguments):
        return self.call("nvim_exec_lua", code, list(arguments))

    def command(self, command: str):
        self.call("nvim_command", command)

    def keys(self, keys: str):
        """Types keys, as a terminal would send them; `<Esc>` and the like are special keys."""
        self.call("nvim_input", keys)

    def lines(self, buffer: int = 0) -> list[str]:
        return self.call("nvim_buf_get_lines", buffer, 0, -1, True)

    # Waiting

    def until(self, condition, what: str):
        """Waits until the condition holds; it is looked at again whenever the screen changes, or a little later."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if value := condition():
                return value
            assert time.monotonic() < deadline, (
                f"waited in vain for {what}; the screen:\n{self.screen.text()}"
            )
            assert not self._ended, f"the editor ended while waiting for {what}"
            with self._changed:
                self._changed.wait(0.05)

    def until_lua(self, code: str, what: str):
        return self.until(lambda: self.lua(code), what)

    def grey(self) -> str:
        """Waits for grey text."""
        return self.until(self.screen.grey, "grey text")

    def no_grey(self):
        self.until(lambda: not self.screen.grey(), "no grey text")

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.write(msgpack.packb([2, "nvim_command", ["qall!"]]))
            try:
                self.process.stdin.flush()
                self.process.wait(2)
            except (OSError, subprocess.TimeoutExpired):
                self.process.terminate()
                self.process.wait(PATIENCE)
