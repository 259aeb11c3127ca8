"""Emacs: lsp-mode's inline completion and eglot's completion, with the set-ups of the README."""

from conftest import editors, saved
from sample import AFTER, BEFORE, LAST_LINE
from snippets import snippet

TAB = b"\t"
BACKSPACE = b"\x7f"
COMPLETE = b"\x1b\t"
SELECT_LINE = b"\x01\0\x05"
SAVE = b"\x18\x13"
# Emacs's package manager, with the packages that Debian unpacked. Compiling is not worth its time here.
PREPARE = """(progn
  (setq native-comp-jit-compilation nil native-comp-enable-subr-trampolines nil)
  (setq package-directory-list '("{packages}"))
  (package-initialize))"""


def start(bench, name: str, text: str = BEFORE + AFTER, line: int = BEFORE.count("\n") + 1):
    """Emacs with the set-up of the README, at the end of a line."""
    init = bench.configure("init.el", f";;; -*- lexical-binding: t -*-\n{snippet(name)}")
    file = bench.file("sample.py", text)
    packages = editors() / "emacs/usr/share/emacs/site-lisp/elpa-src"
    prepare = PREPARE.format(packages=packages)
    return bench.run(editors() / "bin" / "emacs", "-nw", "-Q", "--eval", prepare, "-l", init, f"+{line}:1000", file), file


def finish(bench, emacs, file, expected: str):
    """Waits until the server has this text too, and saves it."""
    emacs.until(lambda: bench.conversation.document() == expected, lambda: f"{expected!r}, but {bench.conversation.document()!r}")
    emacs.type(SAVE)
    emacs.until(lambda: saved(file) == expected, lambda: f"{expected!r}, but {saved(file)!r}")
    assert bench.conversation.failures() == []
    assert bench.conversation.asked("initialize")[0]["params"]["initializationOptions"] == {"maxTokens": 64}


def grey(bench, emacs):
    """The suggestion behind a typed blank, once it is on the screen."""
    edit = bench.conversation.suggested(BEFORE + " " + AFTER)
    return edit if edit and f"{LAST_LINE} {edit.text.split(chr(10))[0]}" in emacs.text() else None


def test_lsp_mode_shows_grey_text_and_tab_takes_it(bench):
    emacs, file = start(bench, "lsp-mode")
    emacs.shows("Select action")
    emacs.type("i")
    emacs.until(bench.conversation.begun, "loaded model and open document")
    edit = emacs.insist(" ", lambda: grey(bench, emacs), "grey text", again=BACKSPACE + b" ")
    assert bench.conversation.document() == BEFORE + " " + AFTER
    emacs.type(TAB)
    finish(bench, emacs, file, edit.applied())
    emacs.until(lambda: bench.conversation.accepted() == 1, "count of what was taken")


def test_eglot_completes_with_it(bench):
    emacs, file = start(bench, "eglot")
    emacs.until(bench.conversation.begun, "loaded model and open document")
    emacs.type(" ")
    emacs.type(COMPLETE)
    edit = emacs.until(lambda: bench.conversation.suggested(BEFORE + " " + AFTER), "suggestion")
    finish(bench, emacs, file, edit.applied())


def test_eglots_code_action_is_answered_in_a_document(bench):
    # The base model has little to say to this; its answers to most questions end at the limit only.
    emacs, _ = start(bench, "eglot", "x = 1\n", 1)
    emacs.until(bench.conversation.begun, "loaded model and open document")
    emacs.type(SELECT_LINE)
    emacs.type(b"\x1bxeglot-code-actions\r")
    emacs.shows("Pick an action")
    emacs.type("Gemma: find the bug\r")
    emacs.shows("# Gemma: fix")
    assert bench.conversation.asked("workspace/executeCommand")[0]["params"]["command"] == "gemma.ask"
    assert bench.conversation.failures() == []
