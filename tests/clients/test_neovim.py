"""Neovim's own language client, and the plugin, with the set-ups of the README."""

import pytest

from conftest import HERE, editors, saved
from sample import AFTER, BEFORE, LAST_LINE
from snippets import snippet

ESCAPE = b"\x1b"
BACKSPACE = b"\x7f"
CTRL_SPACE = b"\0"
CTRL_N = b"\x0e"
CTRL_Y = b"\x19"


def start(bench, version: str, set_up: str | None = None):
    """Neovim with a set-up of the README, in insert mode behind the sample's first half, the model loaded."""
    lines = snippet(set_up or f"neovim-{version}").replace("/path/to/gemma-ls", str(HERE.parents[1]))
    init = bench.configure("nvim/init.lua", lines)
    file = bench.file("sample.py", BEFORE + AFTER)
    neovim = bench.run(editors() / "bin" / f"nvim-{version}", "-u", init, "-n", file)
    neovim.until(bench.conversation.begun, "loaded model and open document")
    neovim.type(f"{BEFORE.count(chr(10))}jA")
    neovim.shows("-- INSERT --")
    return neovim, file


def grey(bench, neovim):
    """The suggestion behind a typed blank, once it is on the screen."""
    edit = bench.conversation.suggested(BEFORE + " " + AFTER)
    return edit if edit and f"{LAST_LINE} {edit.text.split(chr(10))[0]}" in neovim.text() else None


def finish(bench, neovim, file, expected: str):
    """Waits until the server has this text too, and saves it."""
    neovim.until(lambda: bench.conversation.document() == expected, lambda: f"{expected!r}, but {bench.conversation.document()!r}")
    neovim.type(ESCAPE)
    neovim.until(lambda: "-- INSERT --" not in neovim.text(), "normal mode")
    neovim.type(":w\r")
    neovim.until(lambda: saved(file) == expected, "saved file")
    assert bench.conversation.failures() == []


def test_0_12_shows_grey_text_and_tab_takes_it(bench):
    neovim, file = start(bench, "0.12")
    edit = neovim.insist(" ", lambda: grey(bench, neovim), "grey text", again=BACKSPACE + b" ")
    assert bench.conversation.document() == BEFORE + " " + AFTER
    neovim.type("\t")
    finish(bench, neovim, file, edit.applied())
    neovim.until(lambda: bench.conversation.accepted() == 1, "count of what was taken")


def test_0_12_tab_is_a_tab_where_nothing_is_suggested(bench):
    neovim, _ = start(bench, "0.12")
    neovim.type(ESCAPE)
    neovim.until(lambda: "-- INSERT --" not in neovim.text(), "normal mode")
    neovim.type("ggO")
    neovim.shows("-- INSERT --")
    neovim.type("\t#")
    line = neovim.until(lambda: "#" in (line := bench.conversation.document().split("\n")[0]) and line, "typed line")
    assert line.strip(" \t") == "#" and line != "#"


def test_0_11_has_it_in_the_completion_menu(bench):
    neovim, file = start(bench, "0.11")
    neovim.type(" ")
    neovim.until(lambda: bench.conversation.document() == BEFORE + " " + AFTER, "typed blank")
    edit = neovim.insist(CTRL_SPACE, lambda: bench.conversation.suggested(BEFORE + " " + AFTER), "entry")
    neovim.shows(edit.text.split("\n")[0])
    neovim.type(CTRL_N)
    neovim.until(lambda: bench.conversation.document() == edit.applied(), "chosen entry")
    neovim.type(CTRL_Y)
    finish(bench, neovim, file, edit.applied())
    neovim.until(lambda: bench.conversation.accepted() == 1, "count of what was taken")


@pytest.mark.parametrize("version", ["0.11", "0.12"])
def test_the_plugins_set_up_shows_grey_text_and_tab_takes_it(bench, version):
    neovim, file = start(bench, version, "neovim-plugin")
    edit = neovim.insist(" ", lambda: grey(bench, neovim), "grey text", again=BACKSPACE + b" ")
    neovim.type("\t")
    finish(bench, neovim, file, edit.applied())
