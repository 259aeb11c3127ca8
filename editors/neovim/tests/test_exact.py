"""What the grey text promises is what the file becomes: the screen before and after it is taken is the same.

The suggestions are made up here, since no model can be relied on for the odd ones; no server is needed.
"""

import pytest

from conftest import VERSIONS, Editor

# (the line, with | for the cursor; what is suggested; what of the line behind the cursor it replaces)
CASES = {
    "plain": ("return |", "fib(n)", ""),
    "nothing before": ("|", "x = 1", ""),
    "inside the brackets": ("call(|)", "a, b", ""),
    "up to the bracket": ("call(|)", "a, b)", ")"),
    "beyond the bracket": ("call(|)", "a, b) + 1", ")"),
    "brackets in brackets": ("call(|))", "f(a), (b))", ")"),
    "quote and bracket": ('print("|")', 'Hello, world")', '")'),
    "a tail of other text": ("x = |old", "new_value", "old"),
    "a tail and what follows": ("x = |old; y = 2", "new_value", "old"),
    "a shorter text than the tail": ("x = |very_long_name; y", "z", "very_long_name"),
    "lines": ("if x:|", "\n    one()\n    two()", ""),
    "lines after text": ("if |", "x:\n    one()", ""),
    "lines and a bracket": ("f(|)", "\n    1,\n    2,\n)", ")"),
    "lines and what follows": ("f(|) + rest", "\n    1,\n)", ")"),
    "an empty line within": ("a = 1|", "\n\nb = 2", ""),
    "chinese": ("名前 = |", '"日本語のテキスト"', ""),
    "chinese behind": ("f(|) # 日本語", "“中文”", ""),
    "emoji": ("x = '👍🏽 |'", "👨‍👩‍👧 ok 🎉", ""),
    "combining": ("e\u0301te\u0301 = |", "cafe\u0301 + n\u0303", ""),
    "tab before": ("\t\tif |", "x {\n\t\t\treturn\t1\n\t\t}", ""),
    "tabs within": ("a\tb|", "\tc\tdd\teee", ""),
    "a tab after a wide character": ("字|", "\t字\tb", ""),
    "wide tail": ("x = |字典", "字典)", "字典"),
    "arabic": ("x = |", "سلام", ""),
    "long": ("x = |", "abcdefghij" * 12, ""),
}


@pytest.fixture(scope="module", params=VERSIONS)
def bare(request, tmp_path_factory):
    editor = Editor(request.param, tmp_path_factory.mktemp("bare"))
    editor.command("set list listchars=tab:\\ \\  noruler noshowmode")
    yield editor
    editor.close()


def suggest(nvim, line: str, text: str, tail: str):
    """Shows a suggestion at the cursor of a buffer with this line between two others."""
    before, behind = line.split("|")
    nvim.keys("<C-\\><C-n>")
    nvim.command("silent! %bwipeout!")
    nvim.call("nvim_buf_set_lines", 0, 0, -1, True, ["first", before + behind, "last"])
    nvim.call("nvim_win_set_cursor", 0, [2, 0])
    nvim.keys("A" + "<Left>" * len_in_characters(nvim, behind))
    nvim.until_lua("return vim.api.nvim_get_mode().mode == 'i'", "insert mode")
    nvim.until(lambda: nvim.call("nvim_win_get_cursor", 0) == [2, len(before.encode())], "the cursor")
    nvim.lua(
        """
        local text, tail = ...
        local own, bufnr = require('gemma.ghost.own'), vim.api.nvim_get_current_buf()
        local col = vim.api.nvim_win_get_cursor(0)[2]
        own.attach(bufnr, -1, false)
        own.adopt(bufnr, { id = -1, offset_encoding = 'utf-8' }, { insertText = text, range = {
          start = { line = 1, character = col }, ['end'] = { line = 1, character = col + #tail } } }, false)
        """,
        text,
        tail,
    )
    nvim.command("redraw")


def len_in_characters(nvim, text: str) -> int:
    return nvim.call("nvim_call_function", "strcharlen", [text])


def body(nvim) -> list[str]:
    """The screen without its last line, in which messages stand."""
    nvim.command("redraw")
    return nvim.screen.lines()[:-1]


def take(nvim, kind: str):
    assert nvim.lua("return require('gemma.ghost').accept(...)", kind)
    # Keys are done in order: once this one is seen, those before it are done.
    nvim.lua("vim.g.gemma_seen = 0")
    nvim.keys("<Cmd>let g:gemma_seen = 1<CR>")
    nvim.until_lua("return vim.g.gemma_seen == 1", "the keys to be done")


@pytest.mark.parametrize("case", CASES)
def test_the_screen_stays_when_it_is_taken(bare, case):
    line, text, tail = CASES[case]
    suggest(bare, line, text, tail)
    promised = body(bare)
    take(bare, "whole")
    before, behind = line.split("|")
    assert bare.lines() == ["first", *(before + text + behind[len(tail) :]).split("\n"), "last"]
    assert body(bare) == promised


@pytest.mark.parametrize(
    "case, grey",
    [
        ("up to the bracket", "a, b"),
        ("brackets in brackets", "f(a), (b)"),
        ("quote and bracket", "Hello, world"),
    ],
)
def test_text_that_stays_is_not_grey(bare, case, grey):
    suggest(bare, *CASES[case])
    assert bare.screen.grey() == grey


@pytest.mark.parametrize("kind", ["word", "line"])
@pytest.mark.parametrize("case", CASES)
def test_the_screen_stays_piece_by_piece(bare, case, kind):
    line, text, tail = CASES[case]
    suggest(bare, line, text, tail)
    promised = body(bare)
    before, behind = line.split("|")
    expected = ["first", *(before + text + behind[len(tail) :]).split("\n"), "last"]
    for _ in range(len(text)):
        take(bare, kind)
        assert body(bare) == promised
        if not bare.lua("return require('gemma.ghost').visible()"):
            break
    assert bare.lines() == expected


@pytest.mark.parametrize("case", CASES)
def test_one_undo_brings_the_text_back(bare, case):
    line, text, tail = CASES[case]
    suggest(bare, line, text, tail)
    take(bare, "whole")
    bare.keys("<Esc>u")
    bare.until(lambda: bare.lines() == ["first", line.replace("|", ""), "last"], "the text as it was")


def test_words_are_vims(bare):
    words = ["foo", "(", "bar_1", ",", " 名前", "、", " 👍", "\n    if", " x"]
    rest = "".join(words)
    for word in words:
        assert bare.lua("return require('gemma.ghost.pieces').first(...)", rest, "word") == word
        rest = rest[len(word) :]


def test_half_a_character_is_never_suggested(bare):
    suggest(bare, "caf|", "e\u0301", "")
    assert bare.lua("return require('gemma.ghost').visible()")
    bare.keys("e")
    bare.until(lambda: bare.lines()[1] == "cafe", "the key")
    assert not bare.lua("return require('gemma.ghost').visible()")
