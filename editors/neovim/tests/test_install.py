"""The set-ups of the README, as they stand there."""

import os
import re
import shutil
import subprocess

import pytest

from conftest import PYTHON, VERSIONS, Editor, required
from nvim import ROOT

ADDRESS = "https://example.org/gemma-ls"


def snippet(name: str) -> str:
    text = (ROOT / "README.md").read_text()
    return re.search(rf"<!-- snippet: {name} -->\n```lua\n(.*?)```", text, re.S)[1]


def repository(folder):
    """A repository with the plugin where it lies in ours."""
    shutil.copytree(ROOT, folder / "editors/neovim", ignore=shutil.ignore_patterns("__pycache__", "tests"))
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "plugin"]):
        subprocess.run([*git, *command], check=True)
    return folder


def start(version: str, home, init: str) -> Editor:
    """Neovim with this configuration; the server is found on the path."""
    programs = home / "bin"
    programs.mkdir(parents=True)
    (programs / "gemma-ls").symlink_to(required("GEMMA_LS_BIN"))
    (home / "init.lua").write_text(init)
    path = f"{programs}:{os.environ['PATH']}"
    env = {"HOME": str(home), "PATH": path}
    nvim = Editor(version, home, arguments=["-u", str(home / "init.lua")], env=env)
    nvim.until_lua("return vim.v.vim_did_enter == 1", "the end of the configuration")
    return nvim


def check(nvim):
    """The plugin is there, the server comes, the help is found."""
    nvim.open("fibonacci.py", PYTHON)
    assert nvim.lua("return vim.fn.maparg('<Tab>', 'i', false, true).desc") == "gemma: take the suggestion"
    assert nvim.call("nvim_call_function", "exists", [":Gemma"]) == 2
    nvim.command("execute 'helptags' fnamemodify(nvim_get_runtime_file('doc/gemma.txt', 0)[0], ':h')")
    nvim.command("help gemma-setup")
    assert nvim.lua("return vim.fn.expand('%:t')") == "gemma.txt"


@pytest.mark.parametrize("version", VERSIONS)
def test_by_hand(version, tmp_path):
    repository(tmp_path / "src/gemma-ls")
    nvim = start(version, tmp_path, snippet("hand"))
    try:
        check(nvim)
    finally:
        nvim.close()


def test_vim_pack(tmp_path):
    address = repository(tmp_path / "served/gemma-ls").as_uri()
    init = snippet("pack").replace(ADDRESS, address).replace("' })\n", "' }, { confirm = false })\n", 1)
    nvim = start("0.12", tmp_path, init)
    try:
        check(nvim)
    finally:
        nvim.close()
