"""Helix: its completion menu, with the set-up of the README."""

from conftest import editors, saved
from sample import AFTER, BEFORE
from snippets import snippet

ESCAPE = b"\x1b"
CTRL_X = b"\x18"
CTRL_N = b"\x0e"
ENTER = b"\r"


def start(bench, text: str = BEFORE + AFTER, line: int = BEFORE.count("\n") + 1):
    """Helix with the set-up of the README, at the end of a line in insert mode, the model loaded."""
    bench.configure("helix/languages.toml", snippet("helix"))
    file = bench.file("sample.py", text)
    helix = bench.run(editors() / "helix/usr/bin/hx", f"{file}:{line}")
    helix.until(bench.conversation.begun, "loaded model and open document")
    helix.type("A")
    helix.until(lambda: " INS " in helix.text(), "insert mode")
    return helix, file


def test_the_menu_has_it_and_enter_takes_it(bench):
    helix, file = start(bench)
    helix.type(" ")
    helix.until(lambda: bench.conversation.document() == BEFORE + " " + AFTER, "typed blank")
    edit = helix.insist(CTRL_X, lambda: bench.conversation.suggested(BEFORE + " " + AFTER), "entry")
    helix.shows(edit.text.split("\n")[0])
    helix.type(CTRL_N)
    helix.type(ENTER)
    helix.until(lambda: bench.conversation.document() == edit.applied(), lambda: f"{edit}, but {bench.conversation.document()!r}")
    helix.type(ESCAPE)
    helix.until(lambda: " NOR " in helix.text(), "normal mode")
    helix.type(":w\r")
    helix.until(lambda: saved(file) == edit.applied(), "saved file")
    assert bench.conversation.failures() == []
    assert bench.conversation.asked("initialize")[0]["params"]["initializationOptions"] == {"maxTokens": 64}


def test_a_code_action_is_answered_in_a_document(bench):
    # The base model has little to say to this; its answers to most questions end at the limit only.
    helix, _ = start(bench, "x = 1\n", 1)
    helix.type(ESCAPE)
    helix.until(lambda: " NOR " in helix.text(), "normal mode")
    helix.type("ggx")
    helix.type(" a")
    helix.shows("Gemma: find the bug")
    # The first entry is chosen already, and Helix has an order of its own.
    entries = [line for line in helix.text().split("\n") if "Gemma: " in line]
    for _ in range([("Gemma: find the bug" in entry) for entry in entries].index(True)):
        helix.type(CTRL_N)
    helix.type(ENTER)
    helix.shows("# Gemma: fix")
    assert bench.conversation.asked("workspace/executeCommand")[0]["params"]["command"] == "gemma.ask"
    assert bench.conversation.failures() == []


def test_a_question_is_asked_as_a_command(bench):
    helix, _ = start(bench)
    helix.type(ESCAPE)
    helix.until(lambda: " NOR " in helix.text(), "normal mode")
    helix.type(snippet("helix-question").strip().replace("}", ', "maxTokens": 8}') + "\r")
    helix.shows("# Gemma: ask")
    assert bench.conversation.failures() == []
