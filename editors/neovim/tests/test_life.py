"""The server's life, and what is left alone: settings, secrets, keys, files."""

import json
import os
import pathlib
import subprocess

import pytest

from conftest import PYTHON, VERSIONS, Editor, required

PICTURE = pathlib.Path(__file__).resolve().parents[3] / "tests/fixtures/golden/paligemma/image.png"


# All mappings, of the editor and of the buffer, as "mode, key, description".
MAPPED = """
local mapped = {}
for _, mode in ipairs({ 'n', 'i', 'x', 's', 'o', 't', 'c' }) do
  for _, maps in ipairs({ vim.api.nvim_get_keymap(mode), vim.api.nvim_buf_get_keymap(0, mode) }) do
    for _, map in ipairs(maps) do
      table.insert(mapped, mode .. map.lhs .. ' ' .. (map.desc or ''))
    end
  end
end
return mapped
"""

SERVERS_PROCESS = """
for _, process in ipairs(vim.api.nvim_get_proc_children(vim.fn.getpid())) do
  if (vim.api.nvim_get_proc(process) or {}).name == 'gemma-ls' then return process end
end
"""


def requested(nvim) -> int:
    return nvim.ask("gemma/status")["completions"]["requested"]


def test_nothing_is_loaded_before_setup_and_no_key_is_taken(fresh):
    nvim = fresh()
    before = nvim.lua(MAPPED)
    assert not [name for name in nvim.lua("return vim.tbl_keys(package.loaded)") if name.startswith("gemma")]
    assert nvim.call("nvim_call_function", "exists", [":Gemma"]) == 2
    nvim.setup({})
    nvim.open("fibonacci.py", PYTHON)
    new = set(nvim.lua(MAPPED)) - set(before)
    # Neovim itself maps keys in a buffer that has a language client.
    ours = {key for key in new if "gemma" in key.partition(" ")[2]}
    assert all(key.startswith("i<Plug>(gemma-") for key in ours), ours
    assert len(ours) == 5


def test_a_key_does_what_it_did_where_nothing_is_suggested(fresh):
    nvim = fresh()
    nvim.lua("vim.keymap.set('i', '<C-l>', function() return 'mine' end, { expr = true })")
    nvim.command("inoremap <C-j> yours")
    nvim.setup(
        {
            "keymaps": {"accept": "<C-l>", "accept_word": "<C-j>", "dismiss": "<C-b>"},
            "ghost": {"enabled": False},
        }
    )
    nvim.keys("i<C-l><C-j>")
    nvim.until(lambda: nvim.lines() == ["mineyours"], "what the keys did before")


def test_wrong_options_are_told_and_the_others_used(fresh):
    nvim = fresh()
    nvim.setup({"ghost": {"debounce": "soon", "enabled": False}, "keymap": {}, "chat": 3})
    told = nvim.told()
    assert 'ghost.debounce is to be a whole number from 0, not "soon".' in told
    assert "there is no option keymap. Did you mean keymaps?" in told
    assert "chat is to be a table, not 3." in told
    assert nvim.lua("return require('gemma.config').options.ghost") == {
        "enabled": False,
        "engine": "auto",
        "debounce": 30,
    }


def test_a_program_that_is_missing_is_told_once_with_what_to_do(fresh):
    nvim = fresh()
    nvim.setup({"cmd": ["/nowhere/gemma-ls", "lsp"]})
    nvim.command("edit some.py")
    assert nvim.told().count("the program /nowhere/gemma-ls was not found. Install gemma-ls") == 1
    nvim.command("Gemma chat Hello?")
    nvim.until(lambda: "> Error: the program /nowhere/gemma-ls was not found." in nvim.said(), "the error")


def test_a_model_that_is_missing_is_told_and_another_one_can_be_chosen(fresh):
    nvim = fresh()
    nvim.setup({"settings": {"model": "/nowhere/model.gguf"}})
    nvim.command("set statusline=[%{%v:lua.require'gemma'.statusline()%}]")
    nvim.open("fibonacci.py", PYTHON)
    nvim.until(lambda: "[gemma failed]" in nvim.screen.text(), "the state")
    nvim.command("Gemma status")
    nvim.until(lambda: "/nowhere/model.gguf" in nvim.screen.text(), "the reason")
    nvim.keys("<CR>")
    nvim.command(f"Gemma model {required('GEMMA_LS_TEST_MODEL')}")
    nvim.ready()
    nvim.keys("5GAreturn fib")
    nvim.grey()


def test_the_server_is_killed_and_comes_back_with_the_text_as_it_is(fresh):
    nvim = fresh({"keymaps": {"accept": "<Tab>"}})
    nvim.open("fibonacci.py", PYTHON)
    nvim.ready()
    nvim.keys("ggO# 名前<Esc>")
    nvim.until(lambda: nvim.lines()[0] == "# 名前", "the edit")
    text = nvim.lines()
    number = nvim.lua("return require('gemma.client').get().id")
    process = nvim.lua(SERVERS_PROCESS)
    os.kill(process, 9)
    nvim.until_lua(
        f"local c = require('gemma.client').get() return c and c.initialized and c.id ~= {number}",
        "a new server",
    )
    assert nvim.lines() == text
    assert "is started again" in nvim.told()
    nvim.ready()
    nvim.keys("6GAreturn fib")
    grey = nvim.grey()
    # It has the unsaved text: what it adds belongs where it is.
    nvim.keys("<Tab>")
    nvim.until(lambda: nvim.lines()[5] == "    return fib" + grey.split("\n")[0], "the text")
    assert nvim.lines()[:5] == text[:5]


def test_a_language_is_turned_off_and_on(nvim):
    nvim.suggest()
    nvim.command("Gemma toggle filetype")
    nvim.no_grey()
    nvim.keys("<Esc>S    return fib")
    nvim.until(lambda: nvim.ask("gemma/status")["completions"]["last"]["reason"] == "disabled", "the refusal")
    assert nvim.screen.grey() == ""
    uri = nvim.lua("return { textDocument = { uri = vim.uri_from_bufnr(0) } }")
    assert nvim.ask("gemma/status", uri)["document"]["off"] == "languagesOff"
    nvim.command("Gemma toggle filetype")
    nvim.keys("onacci")
    nvim.grey()


def test_off_asks_nothing_also_on_opening_a_file(nvim):
    nvim.command("Gemma toggle")
    before = requested(nvim)
    nvim.open("other.py", PYTHON)
    nvim.keys("5GAreturn fib<Esc>")
    nvim.until(lambda: nvim.lines()[4] == "    return fib", "the keys")
    # A question that had been sent would have been counted by the time this one is answered.
    assert requested(nvim) == before
    nvim.command("Gemma toggle")
    nvim.keys("A")
    nvim.grey()


def test_secret_files_are_left_alone(nvim):
    nvim.open(".env", "API_TOKEN=\n")
    nvim.keys("A")
    nvim.until(
        lambda: (nvim.ask("gemma/status")["completions"]["last"] or {}).get("reason") == "disabled",
        "the refusal",
    )
    assert nvim.screen.grey() == ""
    nvim.keys("<Esc>")
    nvim.command("Gemma status")
    nvim.until(lambda: "this file: " in nvim.screen.text(), "the reason in the status")
    nvim.keys("<CR>")


def test_the_status_says_why(nvim):
    nvim.suggest()
    nvim.keys("<Esc>")
    sentence = nvim.ask("gemma/status")["completions"]["last"]["sentence"]
    nvim.command("Gemma status")
    nvim.until(lambda: f"last suggestion: {sentence[:40]}" in nvim.screen.text(), "the sentence")
    nvim.keys("<CR>")


def test_checkhealth_has_no_error(nvim):
    nvim.open("fibonacci.py", PYTHON)
    nvim.command("checkhealth gemma")
    nvim.until_lua("return vim.bo.filetype == 'checkhealth'", "the report")
    text = "\n".join(nvim.lines())
    assert "The model is ready." in text
    assert "ERROR" not in text and "WARNING" not in text, text


def test_the_log_shows_what_the_server_wrote(nvim):
    nvim.open("fibonacci.py", PYTHON)

    def logged() -> bool:
        nvim.command("Gemma log")
        lines = nvim.lines()
        nvim.command("bwipeout")
        return any("is ready on" in line for line in lines)

    # What a server writes reaches the log a little later than its answers reach us.
    nvim.until(logged, "the line in the log")


def test_every_help_tag_is_found_and_every_subcommand_has_one(nvim):
    doc = nvim.lua("return vim.api.nvim_get_runtime_file('doc/gemma.txt', false)[1]")
    tags = nvim.home / "tags-check"
    tags.mkdir(exist_ok=True)
    (tags / "gemma.txt").write_text(pathlib.Path(doc).read_text())
    nvim.command(f"helptags {tags}")
    named = {line.split("\t")[0] for line in (tags / "tags").read_text().splitlines()}
    for name in nvim.lua("return require('gemma.commands').names('')"):
        assert f":Gemma-{name}" in named
    for option in nvim.lua("return vim.tbl_keys(require('gemma.config').defaults)"):
        assert f"gemma-option-{option}" in named
    for function in nvim.lua("return vim.tbl_keys(require('gemma'))"):
        assert f"gemma.{function}()" in named


def test_the_annotations_know_the_servers_settings(nvim):
    source = nvim.lua("return vim.api.nvim_get_runtime_file('lua/gemma/config.lua', false)[1]")
    block = pathlib.Path(source).read_text().partition("---@class gemma.Settings")[2].partition("\n\n")[0]
    annotated = {line.split()[1].rstrip("?") for line in block.splitlines() if line.startswith("---@field")}
    schema = subprocess.run(
        [required("GEMMA_LS_BIN"), "inspect", "settings"], capture_output=True, check=True
    ).stdout
    assert annotated == set(json.loads(schema)["properties"])


def test_the_command_line_is_completed(nvim):
    complete = lambda line: nvim.call("nvim_call_function", "getcompletion", [line, "cmdline"])
    assert complete("Gemma st") == ["stats", "status", "stop"]
    assert complete("Gemma toggle f") == ["filetype"]
    (nvim.home / "some picture.png").touch()
    assert complete("Gemma image some") != []


def test_omnifunc_completes_without_any_plugin(nvim):
    nvim.command("Gemma toggle")
    nvim.open("fibonacci.py", PYTHON)
    nvim.keys("5GAreturn fib<C-x><C-o>")
    nvim.until(
        lambda: len(nvim.lines()[4]) > len("    return fib") and nvim.lines()[4].startswith("    return fib"),
        "more text",
    )
    nvim.command("Gemma toggle")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_picture_is_explained(version, tmp_path):
    model = required("GEMMA_LS_TEST_PALIGEMMA")
    nvim = Editor(version, tmp_path, {"settings": {"model": str(model)}})
    try:
        nvim.command(f"Gemma image {PICTURE} What is wrong?")
        nvim.until_lua("return require('gemma.chat').answers() == 1", "the answer")
        assert "What is wrong? (image.png)" in nvim.said()
        nvim.command(f"Gemma image {tmp_path}/nothing.png")
        assert "nothing.png cannot be read" in nvim.told()
    finally:
        nvim.close()


@pytest.mark.parametrize("version", ["0.12"])
def test_our_own_grey_text_on_0_12(version, tmp_path):
    nvim = Editor(version, tmp_path, {"ghost": {"engine": "own"}, "keymaps": {"accept": "<Tab>"}})
    try:
        nvim.open("fibonacci.py", PYTHON)
        nvim.ready()
        grey = nvim.suggest()
        assert not nvim.lua("return vim.lsp.inline_completion.is_enabled({ bufnr = 0 })")
        nvim.keys("<Tab>")
        nvim.until(lambda: nvim.lines()[4] == "    return fib" + grey, "the text")
    finally:
        nvim.close()
