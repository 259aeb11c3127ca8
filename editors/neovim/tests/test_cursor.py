"""What the server is told of the cursor: where it comes to rest, and nothing while somebody types."""

from made_up import FILE

LAST = len(FILE.splitlines()) - 1


def places(made_up) -> list:
    """Where the cursor was told to rest, in all files: name, line, character."""
    heard = made_up.heard("gemma/didMoveCursor")
    return [
        (told["textDocument"]["uri"].rsplit("/", 1)[1], told["position"]["line"], told["position"]["character"])
        for told in heard
    ]


def start(made_up):
    """The editor in a new file, of which the server was told."""
    nvim = made_up.start({})
    nvim.until(lambda: places(made_up) == [("numbers.py", 0, 0)], "the place in the new file")
    return nvim


def rested(nvim):
    """Waits until all that was to be told of the cursor has been: what is due later comes later."""
    nvim.lua("vim.g.rested = false vim.defer_fn(function() vim.g.rested = true end, 300)")
    nvim.until_lua("return vim.g.rested", "the time to pass")
    # A question is answered after what was told before it.
    nvim.ask("gemma/status")


def test_it_is_told_once_where_it_rests(made_up):
    nvim = start(made_up)
    nvim.keys("jjjj")
    nvim.until(lambda: ("numbers.py", 4, 0) in places(made_up), "the fifth line")
    nvim.keys("kj")
    rested(nvim)
    assert places(made_up) == [("numbers.py", 0, 0), ("numbers.py", 4, 0)]


def test_it_is_counted_as_the_server_counts(made_up):
    nvim = start(made_up)
    nvim.keys("$")
    nvim.until(lambda: len(places(made_up)) == 2, "the place")
    # The last of "# 日本語" has three bytes, and one unit of UTF-16.
    assert places(made_up)[-1] == ("numbers.py", 0, 4)


def test_insert_mode_is_told_of_and_typing_is_not(made_up):
    nvim = start(made_up)
    nvim.keys("Go")
    nvim.until(lambda: ("numbers.py", LAST + 1, 0) in places(made_up), "the new line")
    for key in "abc":
        nvim.keys(key)
        nvim.until(lambda: nvim.lines()[-1].endswith(key), "the key")
        rested(nvim)
    nvim.keys("<Esc>gg$")
    nvim.until(lambda: len(places(made_up)) == 3, "the first line")
    assert places(made_up) == [("numbers.py", 0, 0), ("numbers.py", LAST + 1, 0), ("numbers.py", 0, 4)]


def test_insert_mode_that_begins_with_keys_is_not_told_of(made_up):
    nvim = start(made_up)
    nvim.keys("Goabc")
    nvim.until(lambda: nvim.lines()[-1] == "abc", "the keys")
    rested(nvim)
    assert places(made_up) == [("numbers.py", 0, 0)]


def test_a_selection_is_not_told_of(made_up):
    nvim = start(made_up)
    nvim.keys("vjj")
    nvim.until(lambda: nvim.call("nvim_win_get_cursor", 0) == [3, 0], "the selection")
    rested(nvim)
    assert places(made_up) == [("numbers.py", 0, 0)]


def test_a_file_that_comes_to_the_front_is_told_of(made_up):
    nvim = start(made_up)
    (made_up.home / "work" / "other.py").write_text("one\ntwo\n")
    nvim.command(f"edit {made_up.home}/work/other.py")
    nvim.until(lambda: len(places(made_up)) == 2, "the other file")
    nvim.command("buffer numbers.py")
    nvim.until(lambda: len(places(made_up)) == 3, "the first file")
    assert [name for name, _, _ in places(made_up)] == ["numbers.py", "other.py", "numbers.py"]


def test_only_files_are_told_of(made_up):
    nvim = start(made_up)
    nvim.lua(
        """
        local bufnr = vim.api.nvim_create_buf(true, false)
        vim.api.nvim_buf_set_name(bufnr, 'other:///there.py')
        vim.api.nvim_buf_set_lines(bufnr, 0, -1, true, { 'one', 'two' })
        vim.api.nvim_set_current_buf(bufnr)
        assert(vim.lsp.buf_attach_client(bufnr, require('gemma.client').get().id))
        """
    )
    nvim.keys("j")
    nvim.until(lambda: nvim.call("nvim_win_get_cursor", 0) == [2, 0], "the move")
    rested(nvim)
    assert [name for name, _, _ in places(made_up)] == ["numbers.py"]


def test_nothing_is_told_where_completion_is_off(made_up):
    nvim = start(made_up)
    for line, off in ((2, "Gemma toggle"), (4, "Gemma toggle filetype")):
        nvim.command(off)
        nvim.keys(f"{line}G")
        nvim.until(lambda: nvim.call("nvim_win_get_cursor", 0) == [line, 0], "the move")
        rested(nvim)
        assert ("numbers.py", line - 1, 0) not in places(made_up)
        nvim.command(off)
        nvim.keys(f"{line + 1}G")
        nvim.until(lambda: ("numbers.py", line, 0) in places(made_up), "the place")


def test_a_server_that_does_not_ask_for_it_is_told_nothing(made_up):
    nvim = made_up.start({"capabilities": {"experimental": {}}})
    number = nvim.lua("return require('gemma.client').get().id")
    again = f"local c = require('gemma.client').get() return c and c.initialized and c.id ~= {number}"
    nvim.command("Gemma restart")
    nvim.until_lua(again, "a server that asks for nothing")
    made_up.heard_file.write_text("")
    nvim.keys("G")
    nvim.until(lambda: nvim.call("nvim_win_get_cursor", 0) == [LAST + 1, 0], "the move")
    rested(nvim)
    assert places(made_up) == []
    made_up.answer({})
    nvim.command("Gemma restart")
    nvim.until(lambda: places(made_up), "a server that asks for it")
