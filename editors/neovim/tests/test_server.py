"""What passes between editor and server besides answers: counts, models, states, and the server's end."""

import json

import pytest

from made_up import ask


def test_what_is_shown_and_taken_is_counted(made_up):
    item = {
        "insertText": "one two",
        "command": {
            "title": "",
            "command": "gemma.didAcceptCompletion",
            "arguments": [{"id": 5, "kind": "whole"}],
        },
    }
    nvim = made_up.start({"textDocument/inlineCompletion": [{"items": [item]}]})
    nvim.keys("Go")
    nvim.until(lambda: "one two" in nvim.screen.grey(), "grey text")
    nvim.until(lambda: made_up.heard("gemma/didShowCompletion"), "the notification")
    nvim.keys("<C-l>")
    nvim.until(lambda: made_up.heard("gemma/didAcceptCompletion"), "the notification of a word")
    nvim.keys("<Tab>")
    nvim.until(lambda: len(made_up.heard("gemma/didAcceptCompletion")) == 2, "the notification of the rest")
    assert made_up.heard("gemma/didShowCompletion")[0] == {"id": 5}
    assert made_up.heard("gemma/didAcceptCompletion") == [
        {"id": 5, "kind": "word", "text": "one"},
        {"id": 5, "kind": "whole"},
    ]
    assert nvim.lines()[-1] == "one two"


STATUS = {"version": "1", "model": {"name": "made-up", "state": "ready"}, "completions": {"last": None}}


@pytest.mark.parametrize(
    "cost, told",
    [
        (
            {"reason": "shown", "tokensAsked": 812, "tokensComputed": 1, "firstTokenMs": 17.6},
            "last completion: 1 of 812 tokens computed, 18 ms to the first",
        ),
        (
            {"reason": "shown", "tokensAsked": None, "tokensComputed": None, "firstTokenMs": 0.2},
            "last completion: nothing had to be computed, less than 1 ms",
        ),
        (None, None),
    ],
)
def test_the_status_says_what_the_last_suggestion_cost(made_up, cost, told):
    answer = {"items": [{"insertText": "one"}], "gemma": cost}
    nvim = made_up.start({"textDocument/inlineCompletion": [answer], "gemma/status": [STATUS]})
    nvim.lua("require('gemma.cost').forget()")
    nvim.keys("Go")
    nvim.until(lambda: "one" in nvim.screen.grey(), "grey text")
    nvim.keys("<Esc>")
    nvim.command("Gemma status")
    nvim.until(lambda: "completion: made-up, ready" in nvim.screen.text(), "the status")
    if told:
        nvim.until(lambda: told in nvim.screen.text(), told)
    else:
        assert "last completion: " not in nvim.screen.text()
    nvim.keys("<CR>")


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
        {
            "name": "small",
            "bytes": 253_000_000,
            "installed": True,
            "infill": False,
            "instructed": False,
            "pictures": False,
        },
        {
            "name": "large",
            "bytes": 5_000_000_000,
            "installed": False,
            "infill": True,
            "instructed": False,
            "pictures": False,
        },
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
    nvim.until(
        lambda: (
            made_up.heard("workspace/didChangeConfiguration") and settings(made_up).get("model") == "small"
        ),
        "the setting",
    )
    assert nvim.lua("return vim.g.lines")[1] == "  large, 5.0 GB, made for code, to be pulled"


def test_a_model_that_is_missing_is_pulled(made_up):
    progress = [{"kind": "begin", "title": "Pulling"}, {"kind": "report", "percentage": 40}, {"kind": "end"}]
    nvim = made_up.start(
        {"gemma/models": [MODELS], "gemma/pullModel": [{"name": "large", "path": "/x", "progress": progress}]}
    )
    choose(nvim, 2)
    nvim.command("Gemma model chat")
    nvim.until(lambda: made_up.heard("gemma/pullModel"), "the request")
    nvim.until(
        lambda: (
            made_up.heard("workspace/didChangeConfiguration")
            and settings(made_up).get("chatModel") == "large"
        ),
        "the setting",
    )
    assert "5.0 GB" in nvim.lua("return vim.g.confirm")


def test_statistics_are_shown(made_up):
    counted = {
        "since": "2026-01-02",
        "shown": 10,
        "accepted": 4,
        "words": 1,
        "lines": 1,
        "wholes": 2,
        "characters": 80,
        "timeSavedMs": 24000,
        "languages": {"python": {"shown": 10, "accepted": 4, "characters": 80}},
    }
    nvim = made_up.start({"gemma/statistics": [counted]})
    nvim.command("Gemma stats")
    nvim.until(lambda: "10 suggestions shown, 4 taken (40 %)" in nvim.screen.text(), "the statistics")
    nvim.keys("<CR>")
    nvim.command("Gemma stats reset")
    nvim.until(lambda: made_up.heard("gemma/statistics")[-1] == {"reset": True}, "the request")


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
    nvim.until_lua(
        "return vim.deep_equal(_G.answers, { { items = {}, incomplete = false } })", "an empty answer"
    )
    running(nvim, but=number)


def test_a_conversation_says_that_the_server_died(made_up):
    nvim = made_up.start({"gemma/chat": [{"dies": True}]})
    number = started_again(nvim)
    nvim.command("Gemma chat Are you there?")
    nvim.until(lambda: "> Error: gemma-ls ended" in nvim.screen.text(), "the error")
    made_up.answer({"gemma/chat": [made_up.chat_answer()]})
    running(nvim, but=number)
    ask(nvim)


def test_a_key_goes_through_other_suggestions(made_up):
    items = [{"insertText": text} for text in ("one", "two", "three")]
    nvim = made_up.start({"textDocument/inlineCompletion": [{"items": items[:1]}, {"items": items}]})
    nvim.keys("Go")
    nvim.until(lambda: "one" in nvim.screen.grey(), "grey text")
    for text in ("two", "three", "one", "two"):
        nvim.lua("require('gemma').next()")
        nvim.until(lambda: text in nvim.screen.grey(), text)
    nvim.keys("<Tab>")
    nvim.until(lambda: nvim.lines()[-1] == "two", "the text")
