"""The plugin's sources for nvim-cmp and blink.cmp, held against what those document of a source."""

import json
import os
import re
import textwrap

import pytest

from conftest import HERE, Bench, editors
from sample import AFTER, BEFORE
from terminal import PATIENCE

CASES = re.findall(r"^function cases\.(\w+)", (HERE / "menus.lua").read_text(), re.MULTILINE)
PLUGIN = HERE.parents[1] / "editors" / "neovim"


@pytest.fixture(scope="module", params=["0.11", "0.12"])
def report(request, tmp_path_factory) -> dict:
    """What was wrong with each case, in one run of Neovim."""
    bench = Bench(tmp_path_factory.mktemp("menus"))
    outcome = bench.folder / "report.json"
    bench.environment["GEMMA_LS_TEST_REPORT"] = str(outcome)
    neovim = bench.run(
        editors() / "bin" / f"nvim-{request.param}", "--clean", "-n", f"+set rtp^={PLUGIN}", f"+luafile {HERE}/menus.lua"
    )
    try:
        # Cases have patience of their own, and several may fail.
        neovim.until(lambda: outcome.exists() and outcome.read_text(), "report", 10 * PATIENCE)
    finally:
        bench.close()
    return json.loads(outcome.read_text())


@pytest.mark.parametrize("case", CASES)
def test_source(report, case):
    assert report[case] == ""


# The menus themselves are on no package registry; who has a copy names its folder.
MENUS = {
    "GEMMA_LS_TEST_NVIM_CMP": """
        local cmp = require('cmp')
        cmp.register_source('gemma', require('gemma.cmp').new())
        cmp.setup({
          sources = { { name = 'gemma' } },
          performance = { fetching_timeout = 100000 },
          mapping = { ['<CR>'] = cmp.mapping.confirm({ select = true }) },
        })""",
    "GEMMA_LS_TEST_BLINK_CMP": """
        require('blink.cmp').setup({
          fuzzy = { implementation = 'lua' },
          keymap = { preset = 'enter' },
          completion = { list = { selection = { preselect = true } } },
          sources = {
            default = { 'gemma' },
            providers = { gemma = { name = 'gemma', module = 'gemma.blink', async = true, timeout_ms = 100000 } },
          },
        })""",
}


@pytest.mark.parametrize("variable", MENUS)
def test_the_menu_itself_shows_what_fits_while_a_word_is_typed(bench, variable):
    if variable not in os.environ:
        pytest.skip(f"{variable} names no folder")
    folders = "".join(f"vim.opt.rtp:prepend('{folder}')\n" for folder in (os.environ[variable], PLUGIN))
    setup = "require('gemma').setup({ ghost = { enabled = false } })\n"
    init = bench.configure("nvim/init.lua", folders + setup + textwrap.dedent(MENUS[variable]))
    file = bench.file("sample.py", BEFORE + AFTER)
    neovim = bench.run(editors() / "bin" / "nvim-0.12", "-u", init, "-n", file)
    neovim.until(bench.conversation.begun, "loaded model and open document")
    neovim.type(f"{BEFORE.count(chr(10))}jA")
    neovim.shows("-- INSERT --")
    neovim.type(" fib")
    typed = BEFORE + " fib" + AFTER
    edit = neovim.until(lambda: bench.conversation.suggested(typed), "suggestion")
    neovim.shows(edit.text.split("\n")[0])
    neovim.type("\r")
    neovim.until(lambda: bench.conversation.document() == edit.applied(), lambda: f"{edit}, but {bench.conversation.document()!r}")
