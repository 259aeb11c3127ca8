"""Conversations in a split: with the real server, whose words are never looked at, only where they go."""

import pytest

from conftest import PYTHON


@pytest.fixture
def chat(nvim):
    """An editor with a file, and no conversation yet."""
    nvim.lua("require('gemma.chat').forget()")
    nvim.open("fibonacci.py", PYTHON)
    longest(nvim, 24)
    yield nvim
    nvim.lua("require('gemma.chat').forget()")
    nvim.command("silent! tabonly | silent! only")


def longest(nvim, tokens: int):
    """A model that was not tuned for dialogues does not know when to end."""
    nvim.lua("require('gemma.config').options.chat.max_tokens = ...", tokens)


def running(nvim) -> int:
    return nvim.ask("gemma/status")["engine"]["running"]


def answers(nvim) -> int:
    return nvim.lua("return require('gemma.chat').answers()")


def wait_for_answer(nvim, count: int = 1):
    nvim.until(lambda: answers(nvim) == count, "the answer")


def to_prompt(nvim):
    nvim.command("Gemma chat")
    nvim.until_lua(
        "return vim.bo.filetype == 'gemma-prompt' and vim.api.nvim_get_mode().mode == 'i'", "the prompt"
    )


def test_an_answer_streams_into_the_split(chat):
    chat.command("Gemma chat What does this do?")
    chat.until(lambda: "What does this do?" in chat.screen.text(), "the question on the screen")
    # Text is there before the answer is complete.
    chat.until(lambda: len(chat.said().partition("tokens\n\n")[2]) > 5, "streamed text")
    wait_for_answer(chat)
    text = chat.said()
    assert text.startswith("## You\n\nWhat does this do?\n\n## Gemma\n\n> fibonacci.py, 7 lines, ")
    # The cursor did not leave the file.
    assert chat.lua("return vim.api.nvim_buf_get_name(0)").endswith("fibonacci.py")


def test_stop_stops_the_computing(chat):
    longest(chat, 100_000)
    chat.command("Gemma chat Tell a very long story.")
    chat.until(lambda: len(chat.said().partition("tokens\n\n")[2]) > 5, "streamed text")
    assert running(chat) == 1
    chat.command("Gemma stop")
    wait_for_answer(chat)
    chat.until(lambda: running(chat) == 0, "the engine to be idle")
    assert chat.said().rstrip().endswith("> Stopped.")


def test_a_follow_up_from_the_prompt(chat):
    chat.command("Gemma chat First?")
    wait_for_answer(chat)
    to_prompt(chat)
    chat.keys("And then?<CR>")
    wait_for_answer(chat, 2)
    text = chat.said()
    assert "## You\n\nAnd then?\n\n## Gemma\n\n> fibonacci.py, 7 lines, 1 earlier question, " in text


def test_a_range_is_explained(chat):
    chat.command("3,4Gemma explain")
    wait_for_answer(chat)
    text = chat.said()
    assert text.startswith("## You\n\nExplain lines 3 to 4 of fibonacci.py.\n")
    assert "lines 3 to 4 selected" in text


def test_unsaved_text_is_talked_about(chat):
    chat.call("nvim_buf_set_lines", 0, 0, 0, True, ["# one", "# two"])
    chat.command("Gemma chat How long is it?")
    wait_for_answer(chat)
    assert "> fibonacci.py, 9 lines, " in chat.said()


def test_secret_files_are_refused(chat):
    chat.open(".env", "TOKEN=1\n")
    chat.command("Gemma chat What is the token?")
    chat.until(lambda: "> Error: " in chat.said(), "the refusal")
    assert ".env" in chat.said().partition("> Error: ")[2]


def test_closing_the_window_stops_the_answer(chat):
    longest(chat, 100_000)
    chat.command("Gemma chat Tell a very long story.")
    chat.until(lambda: len(chat.said().partition("tokens\n\n")[2]) > 5, "streamed text")
    to_prompt(chat)
    chat.keys("<Esc>q")
    chat.until(lambda: chat.lua("return #vim.api.nvim_tabpage_list_wins(0)") == 1, "the windows to close")
    chat.until(lambda: running(chat) == 0, "the engine to be idle")
