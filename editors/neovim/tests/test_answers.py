"""What is done with answers, with a server whose answers are made up."""

import json
import pathlib
import sys

import pytest

from conftest import VERSIONS, Editor

SERVER = pathlib.Path(__file__).parent / "made_up_server.py"

FILE = "# 日本語\ndef one():\n    return 1\n\n\ndef two():\n    return 2\n"
BLOCK = '```python\ndef one():\n    """One. 👍"""\n    return 1\n```'
TEXT = f"Lines 2 to 3 define 👍 one:\n\n{BLOCK}\n\nAnd line 6:\n\n```python\nprint(one())\n```\n"


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def place(part: str) -> dict:
    """Offset and length in the answer, as the server counts them."""
    return {"offset": utf16(TEXT[: TEXT.index(part)]), "length": utf16(part)}


def line_range(first: int, last: int) -> dict:
    return {"start": {"line": first, "character": 0}, "end": {"line": last, "character": 0}}


class MadeUp:
    """An editor with a made-up server."""

    def __init__(self, version: str, home: pathlib.Path):
        self.home = home
        self.file = home / "work" / "numbers.py"
        self.heard_file = home / "heard"
        self.count = 0
        self.answer({})
        env = {"MADE_UP_ANSWERS": str(home / "answers"), "MADE_UP_HEARD": str(self.heard_file)}
        self.nvim = Editor(version, home / "work", None, env=env)
        keymaps = {"accept": "<Tab>", "accept_word": "<C-l>"}
        self.nvim.setup({"cmd": [sys.executable, str(SERVER)], "keymaps": keymaps, "restarts": 1})
        self.nvim.command("set laststatus=2 statusline=[%{%v:lua.require'gemma'.statusline()%}]")
        self.nvim.open("numbers.py", FILE)

    def answer(self, answers: dict):
        """From now on, these are the answers."""
        self.count += 1
        (self.home / "answers").write_text(json.dumps({"count": self.count, **answers}))

    def start(self, answers: dict) -> Editor:
        """The editor with a new file and a new conversation."""
        self.answer(answers)
        self.nvim.keys("<C-\\><C-n>")
        self.nvim.lua("require('gemma.chat').forget() _G.told = {} vim.diagnostic.reset()")
        self.nvim.command("silent! tabonly | silent! only")
        self.heard_file.write_text("")
        self.nvim.open("numbers.py", FILE)
        return self.nvim

    def chat_answer(self, **more) -> dict:
        block = {"language": "python", "text": BLOCK.removeprefix("```python\n").removesuffix("```")}
        uri = self.file.as_uri()
        edit = {"textDocument": {"uri": uri}, "range": line_range(1, 3), "newText": block["text"]}
        last = {"language": "python", "text": "print(one())\n", **place("```python\nprint(one())\n```")}
        context = {"path": "numbers.py", "lines": {"first": 1, "last": 7, "of": 7}, "turns": 0, "promptTokens": 42}
        return {
            "chatId": "", "model": "made-up", "text": TEXT, "finishReason": "stop", "context": context,
            "notices": ["A notice."],
            "code": [{**block, **place(BLOCK), "edit": edit}, last],
            "references": [
                {**place("Lines 2 to 3"), "range": line_range(1, 3)},
                {**place("line 6"), "range": line_range(5, 6)},
            ],
            "progress": [
                {"kind": "step", "message": "Reading 42 tokens"},
                {"kind": "context", "context": context},
                {"kind": "text", "text": TEXT[:10]},
                {"kind": "text", "text": TEXT[10:]},
            ],
            **more,
        }

    def heard(self, method: str) -> list:
        """The parameters of what the server was told."""
        lines = self.heard_file.read_text().splitlines() if self.heard_file.exists() else []
        messages = map(json.loads, lines)
        return [message.get("params") for message in messages if message.get("method") == method]


@pytest.fixture(scope="module", params=VERSIONS)
def made_up(request, tmp_path_factory):
    made_up = MadeUp(request.param, tmp_path_factory.mktemp("made-up"))
    yield made_up
    made_up.nvim.close()


def ask(nvim, command: str = "Gemma chat What is here?", count: int = 1):
    nvim.command(command)
    nvim.until_lua(f"return require('gemma.chat').answers() == {count}", "the answer")


def to_chat(nvim, pattern: str):
    """Moves to a place in what was said."""
    nvim.lua(
        """
        for _, win in ipairs(vim.api.nvim_list_wins()) do
          if vim.bo[vim.api.nvim_win_get_buf(win)].filetype == 'gemma-chat' then vim.api.nvim_set_current_win(win) end
        end
        vim.fn.cursor(1, 1)
        assert(vim.fn.search(...) > 0)
        """,
        pattern,
    )


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
    nvim.until_lua("return vim.fn.getreg('\"') == 'def one():\\n    \"\"\"One. 👍\"\"\"\\n    return 1\\n'", "the register")


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
    assert nvim.lua("return vim.fn.bufnr('numbers.py') > 0 and vim.bo[vim.fn.bufnr('numbers.py')].modified") is False
    nvim.until(lambda: '"""One. 👍"""' in nvim.screen.text(), "the proposal on the screen")
    nvim.keys("<CR>")
    nvim.until_lua("return #vim.api.nvim_list_tabpages() == 1", "the tab page to close")
    lines = nvim.lua("return vim.api.nvim_buf_get_lines(vim.fn.bufnr('numbers.py'), 0, -1, true)")
    assert lines == ["# 日本語", "def one():", '    """One. 👍"""', "    return 1", "", "", "def two():", "    return 2"]
    # One undo brings the file back.
    assert nvim.lua(
        "return vim.api.nvim_buf_call(vim.fn.bufnr('numbers.py'), function() vim.cmd.undo() "
        "return vim.api.nvim_buf_get_lines(0, 0, -1, true) end)"
    ) == FILE.splitlines()


def test_a_difference_can_be_left(made_up):
    nvim = made_up.start({"gemma/chat": [made_up.chat_answer()]})
    ask(nvim)
    to_chat(nvim, "return 1")
    nvim.keys("ga")
    nvim.until_lua("return vim.wo.diff", "the difference")
    nvim.keys("q")
    nvim.until_lua("return #vim.api.nvim_list_tabpages() == 1", "the tab page to close")
    assert nvim.lua("return vim.api.nvim_buf_get_lines(vim.fn.bufnr('numbers.py'), 0, -1, true)") == FILE.splitlines()
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
    assert nvim.lua("return vim.api.nvim_buf_get_lines(vim.fn.bufnr('numbers.py'), 0, -1, true)") == ["# new", *FILE.splitlines()]


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
    nvim = made_up.start({"gemma/chat": [{"error": "no model follows instructions here"}, made_up.chat_answer()]})
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
        json.dumps({"kind": "explain", "textDocument": {"uri": made_up.file.as_uri()}, "selection": line_range(1, 3)}),
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


def test_what_is_shown_and_taken_is_counted(made_up):
    item = {"insertText": "one two", "command": {"title": "", "command": "gemma.didAcceptCompletion", "arguments": [{"id": 5, "kind": "whole"}]}}
    nvim = made_up.start({"textDocument/inlineCompletion": [{"items": [item]}]})
    nvim.keys("Go")
    nvim.until(lambda: "one two" in nvim.screen.grey(), "grey text")
    nvim.until(lambda: made_up.heard("gemma/didShowCompletion"), "the notification")
    nvim.keys("<C-l>")
    nvim.until(lambda: made_up.heard("gemma/didAcceptCompletion"), "the notification of a word")
    nvim.keys("<Tab>")
    nvim.until(lambda: len(made_up.heard("gemma/didAcceptCompletion")) == 2, "the notification of the rest")
    assert made_up.heard("gemma/didShowCompletion")[0] == {"id": 5}
    assert made_up.heard("gemma/didAcceptCompletion") == [{"id": 5, "kind": "word", "text": "one"}, {"id": 5, "kind": "whole"}]
    assert nvim.lines()[-1] == "one two"


def test_the_server_hears_what_the_client_can(made_up):
    nvim = made_up.start({})
    nvim.command("Gemma restart")
    nvim.until(lambda: made_up.heard("initialize"), "the hello")
    (hello,) = made_up.heard("initialize")
    assert hello["capabilities"]["experimental"]["gemma"] == {"status": True, "commands": True}
    assert "inlineCompletion" in hello["capabilities"]["textDocument"]


MODELS = {
    "current": "small",
    "models": [
        {"name": "small", "bytes": 253_000_000, "installed": True, "infill": False, "instructed": False, "pictures": False},
        {"name": "large", "bytes": 5_000_000_000, "installed": False, "infill": True, "instructed": False, "pictures": False},
    ],
}


def choose(nvim, index: int, confirm: int = 1):
    """Answers the questions that would be put to a user."""
    nvim.lua(
        """
        local index, confirm = ...
        vim.ui.select = function(items, opts, done)
          vim.g.lines = vim.tbl_map(opts.format_item, items)
          done(items[index], index)
        end
        vim.fn.confirm = function(text) vim.g.confirm = text return confirm end
        """,
        index,
        confirm,
    )


def settings(made_up) -> dict:
    return made_up.heard("workspace/didChangeConfiguration")[-1]["settings"]["gemma"]


def test_a_model_is_chosen_from_a_list(made_up):
    nvim = made_up.start({"gemma/models": [MODELS]})
    choose(nvim, 1)
    nvim.command("Gemma model")
    nvim.until(lambda: made_up.heard("workspace/didChangeConfiguration") and settings(made_up).get("model") == "small", "the setting")
    assert nvim.lua("return vim.g.lines")[1] == "  large, 5.0 GB, made for code, to be pulled"


def test_a_model_that_is_missing_is_pulled(made_up):
    progress = [{"kind": "begin", "title": "Pulling"}, {"kind": "report", "percentage": 40}, {"kind": "end"}]
    nvim = made_up.start({"gemma/models": [MODELS], "gemma/pullModel": [{"name": "large", "path": "/x", "progress": progress}]})
    choose(nvim, 2)
    nvim.command("Gemma model chat")
    nvim.until(lambda: made_up.heard("gemma/pullModel"), "the request")
    nvim.until(lambda: made_up.heard("workspace/didChangeConfiguration") and settings(made_up).get("chatModel") == "large", "the setting")
    assert "5.0 GB" in nvim.lua("return vim.g.confirm")


def test_statistics_are_shown(made_up):
    counted = {"since": "2026-01-02", "shown": 10, "accepted": 4, "words": 1, "lines": 1, "wholes": 2, "characters": 80,
               "timeSavedMs": 24000, "languages": {"python": {"shown": 10, "accepted": 4, "characters": 80}}}
    nvim = made_up.start({"gemma/statistics": [counted]})
    nvim.command("Gemma stats")
    nvim.until(lambda: "10 suggestions shown, 4 taken (40 %)" in nvim.screen.text(), "the statistics")
    nvim.keys("<CR>")
    nvim.command("Gemma stats reset")
    nvim.until(lambda: made_up.heard("gemma/statistics")[-1] == {"reset": True}, "the request")


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


def test_the_statusline_says_what_the_server_says(made_up):
    nvim = made_up.start({})
    tell = "require('gemma.client').get().handlers['gemma/didChangeStatus'](nil, vim.json.decode(...))"
    for status, shown in [
        ({"state": "loading", "percent": 40, "message": ""}, "[gemma 40%]"),
        ({"state": "ready", "message": ""}, "[gemma]"),
        ({"state": "working", "message": ""}, "[gemma …]"),
        ({"state": "failed", "message": ""}, "[gemma failed]"),
    ]:
        nvim.lua(tell, json.dumps(status))
        nvim.until(lambda: shown in nvim.screen.text(), shown)
    nvim.command("Gemma toggle")
    nvim.until(lambda: "[gemma off]" in nvim.screen.text(), "off")
    nvim.command("Gemma toggle")


def running(nvim, but: int = 0) -> int:
    """Waits for a server, another one than `but`."""
    code = "local c = require('gemma.client').get() return c and c.initialized and c.id"
    return nvim.until(lambda: (number := nvim.lua(code)) != but and number, "a server")


def started_again(nvim) -> int:
    """A server that has not died yet."""
    number = running(nvim)
    nvim.command("Gemma restart")
    return running(nvim, but=number)


def test_a_server_that_keeps_dying_is_left_alone(made_up):
    nvim = made_up.start({"gemma/status": [{"dies": True}]})
    started_again(nvim)
    dead = 0
    for told in ("is started again", "2 times in a row"):
        number = running(nvim, but=dead)
        nvim.lua("require('gemma.client').get():request('gemma/status', vim.empty_dict(), function() end)")
        nvim.until(lambda: told in nvim.told(), "its end to be told")
        dead = number
    nvim.command("Gemma restart")
    running(nvim, but=number)


def test_a_server_that_was_told_to_end_stays_ended(made_up):
    nvim = made_up.start({})
    number = running(nvim)
    nvim.lua("vim.lsp.enable('gemma', false)")
    nvim.until_lua(f"return vim.lsp.get_client_by_id({number}) == nil", "its end")
    nvim.until(lambda: "[gemma stopped]" in nvim.screen.text(), "the state")
    assert "started again" not in nvim.told()
    nvim.command("Gemma restart")
    running(nvim, but=number)


def test_one_server_for_all_projects(made_up):
    nvim = made_up.start({})
    number = running(nvim)
    other = made_up.home / "other"
    (other / ".git").mkdir(parents=True)
    nvim.command(f"edit {other}/file.py")
    nvim.until(lambda: made_up.heard("workspace/didChangeWorkspaceFolders"), "the other folder")
    assert running(nvim) == number
    (change,) = made_up.heard("workspace/didChangeWorkspaceFolders")
    assert [folder["uri"] for folder in change["event"]["added"]] == [other.as_uri()]


def test_questions_of_menus_are_answered_when_the_server_dies(made_up):
    nvim = made_up.start({"textDocument/completion": [{"dies": True}]})
    number = started_again(nvim)
    nvim.lua(
        """
        _G.answers = {}
        require('gemma.source').ask(0, { row = 0, col = 0 }, true, function(answer) table.insert(_G.answers, answer) end)
        """
    )
    nvim.until_lua("return vim.deep_equal(_G.answers, { { items = {}, incomplete = false } })", "an empty answer")
    running(nvim, but=number)


def test_a_conversation_says_that_the_server_died(made_up):
    nvim = made_up.start({"gemma/chat": [{"dies": True}]})
    number = started_again(nvim)
    nvim.command("Gemma chat Are you there?")
    nvim.until(lambda: "> Error: gemma-ls ended" in nvim.screen.text(), "the error")
    made_up.answer({"gemma/chat": [made_up.chat_answer()]})
    running(nvim, but=number)
    ask(nvim)
