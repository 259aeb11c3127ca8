"""What is done with answers, with a server whose answers are made up."""

import json

import pytest

from made_up import FILE, TEXT, ask, line_range, to_chat


def test_the_answer_is_on_the_screen(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    screen = nvim.until(lambda: "A notice." in nvim.screen.text() and nvim.screen.text(), "the notice")
    assert "> numbers.py, 7 lines, 42 tokens" in screen
    assert "Lines 2 to 3 define 👍 one:" in screen
    (asked,) = made_up.heard("gemma/chat")
    assert asked["question"] == "What is here?"
    assert asked["textDocument"] == {"uri": made_up.file.as_uri()}


def test_markdown_is_highlighted(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    to_chat(nvim, "^## You")
    assert nvim.lua("return vim.treesitter.highlighter.active[vim.api.nvim_get_current_buf()] ~= nil")


def test_a_block_is_yanked(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    to_chat(nvim, "return 1")
    nvim.keys("gy")
    nvim.until_lua(
        'return vim.fn.getreg(\'"\') == \'def one():\\n    """One. 👍"""\\n    return 1\\n\'', "the register"
    )


def test_the_last_block_is_put_behind_the_line(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    nvim.call("nvim_win_set_cursor", 0, [7, 0])
    ask(nvim)
    nvim.command("Gemma insert")
    assert nvim.lines() == FILE.splitlines() + ["print(one())"]


def test_a_block_is_shown_as_a_difference_and_applied(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    to_chat(nvim, "return 1")
    nvim.keys("ga")
    nvim.until_lua("return vim.wo.diff and #vim.api.nvim_list_tabpages() == 2", "the difference")
    assert made_up.file.read_text() == FILE
    assert (
        nvim.lua("return vim.fn.bufnr('numbers.py') > 0 and vim.bo[vim.fn.bufnr('numbers.py')].modified")
        is False
    )
    nvim.until(lambda: '"""One. 👍"""' in nvim.screen.text(), "the proposal on the screen")
    nvim.keys("<CR>")
    nvim.until_lua("return #vim.api.nvim_list_tabpages() == 1", "the tab page to close")
    lines = nvim.lua("return vim.api.nvim_buf_get_lines(vim.fn.bufnr('numbers.py'), 0, -1, true)")
    assert lines == [
        "# 日本語",
        "def one():",
        '    """One. 👍"""',
        "    return 1",
        "",
        "",
        "def two():",
        "    return 2",
    ]
    # One undo brings the file back.
    assert (
        nvim.lua(
            "return vim.api.nvim_buf_call(vim.fn.bufnr('numbers.py'), function() vim.cmd.undo() "
            "return vim.api.nvim_buf_get_lines(0, 0, -1, true) end)"
        )
        == FILE.splitlines()
    )


def test_a_difference_can_be_left(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    to_chat(nvim, "return 1")
    nvim.keys("ga")
    nvim.until_lua("return vim.wo.diff", "the difference")
    nvim.keys("q")
    nvim.until_lua("return #vim.api.nvim_list_tabpages() == 1", "the tab page to close")
    assert (
        nvim.lua("return vim.api.nvim_buf_get_lines(vim.fn.bufnr('numbers.py'), 0, -1, true)")
        == FILE.splitlines()
    )
    assert not nvim.lua("return vim.wo[vim.fn.bufwinid('numbers.py')].diff")


@pytest.mark.parametrize("when", ["before it is shown", "while it is shown"])
def test_a_block_for_a_text_that_has_changed_is_refused(made_up, when):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    to_chat(nvim, "return 1")
    change = "vim.api.nvim_buf_set_lines(vim.fn.bufnr('numbers.py'), 0, 0, true, { '# new' })"
    if when == "before it is shown":
        nvim.lua(change)
        nvim.command("Gemma apply")
    else:
        nvim.command("Gemma apply")
        nvim.until_lua("return vim.wo.diff", "the difference")
        nvim.lua(change)
        nvim.command("Gemma apply")
    nvim.until(lambda: "has changed since the answer" in nvim.told(), "the refusal")
    assert nvim.lua("return vim.api.nvim_buf_get_lines(vim.fn.bufnr('numbers.py'), 0, -1, true)") == [
        "# new",
        *FILE.splitlines(),
    ]


def test_a_block_that_replaces_nothing_is_not_applied(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    to_chat(nvim, "print(one")
    nvim.command("Gemma apply")
    assert "does not say what this block replaces" in nvim.told()


def test_enter_on_a_reference_goes_to_the_lines(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    to_chat(nvim, "line 6")
    nvim.keys("<CR>")
    nvim.until_lua("return vim.fn.expand('%:t') == 'numbers.py'", "the file")
    assert nvim.call("nvim_win_get_cursor", 0) == [6, 0]


def test_an_error_is_told_in_the_conversation(made_up):
    nvim = made_up.start(
        {"gemma/chat": [{"error": "no model follows instructions here"}, made_up.chat_answer()]}
    )
    nvim.command("Gemma chat Why?")
    nvim.until(lambda: "> Error: no model follows" in nvim.screen.text(), "the error")
    # The conversation goes on.
    ask(nvim)


def test_a_fence_that_was_never_closed_is_closed(made_up):
    text = "Look:\n\n```python\ndef one("
    cut = made_up.chat_answer(text=text, code=[], references=[], progress=[], finishReason="cancelled")
    nvim = made_up.start({"gemma/chat": [cut]})
    ask(nvim)
    nvim.until(lambda: "Stopped." in nvim.screen.text(), "the remark")
    to_chat(nvim, "def one(")
    assert "def one(\n```\n\n> A notice.\n\n> Stopped." in "\n".join(nvim.lines())


def test_the_conversation_is_told_to_a_server_that_does_not_know_it(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    ask(nvim, "Gemma chat And now?", 2)
    first, second = made_up.heard("gemma/chat")
    assert first["chatId"] == second["chatId"]
    assert first["history"] == []
    assert second["history"] == [{"role": "user", "text": "What is here?"}, {"role": "model", "text": TEXT}]


def test_a_new_conversation_forgets_the_old_one(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    ask(nvim, "Gemma! chat Again?")
    first, second = made_up.heard("gemma/chat")
    assert made_up.heard("gemma/forgetChat")[-1] == {"chatId": first["chatId"]}
    assert second["chatId"] != first["chatId"]
    assert second["history"] == []


def test_code_actions_ask_in_the_chat(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    nvim.lua(
        "vim.lsp.commands['gemma.ask']({ command = 'gemma.ask', arguments = { vim.json.decode(...) } }, {})",
        json.dumps(
            {"kind": "explain", "textDocument": {"uri": made_up.file.as_uri()}, "selection": line_range(1, 3)}
        ),
    )
    nvim.until_lua("return require('gemma.chat').answers() == 1", "the answer")
    (asked,) = made_up.heard("gemma/chat")
    assert asked["kind"] == "explain"
    assert asked["selection"] == line_range(1, 3)


def test_fix_sends_the_errors_of_the_lines(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    nvim.lua(
        """
        vim.diagnostic.set(vim.api.nvim_create_namespace('test'), 0, {
          { lnum = 2, col = 4, message = 'wrong', severity = 1 }, { lnum = 6, col = 0, message = 'elsewhere' } })
        """
    )
    ask(nvim, "2,3Gemma fix")
    (asked,) = made_up.heard("gemma/chat")
    assert [diagnostic["message"] for diagnostic in asked["diagnostics"]] == ["wrong"]


def test_a_picture_from_the_clipboard(made_up):
    programs = made_up.home / "bin"
    programs.mkdir()
    (programs / "wl-paste").write_text("#!/bin/sh\nprintf 'a picture'\n")
    (programs / "wl-paste").chmod(0o755)
    nvim = made_up.start({"gemma/explainImage": [made_up.chat_answer()]})
    nvim.lua("vim.env.PATH, vim.env.WAYLAND_DISPLAY = ... .. ':' .. vim.env.PATH, 'wayland-0'", str(programs))
    ask(nvim, "Gemma image")
    (asked,) = made_up.heard("gemma/explainImage")
    assert asked["data"] == "YSBwaWN0dXJl"
