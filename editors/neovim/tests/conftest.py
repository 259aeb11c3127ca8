"""What the tests share: one editor for each version of Neovim, with the real server and the real model."""

import json
import os
import pathlib

import pytest

from nvim import ROOT, Nvim

VERSIONS = ["0.11", "0.12"]

# Settings under which a busy machine shows what an idle one does.
UNHURRIED = {"maxTimeMs": 100_000}

PYTHON = '''\
def fibonacci(n):
    """Return the n-th Fibonacci number."""
    if n < 2:
        return n
    

print(fibonacci(10))
'''


def required(name: str) -> pathlib.Path:
    path = pathlib.Path(os.environ.get(name, ""))
    assert os.environ.get(name) and path.exists(), f"run tests/run, or point {name} at what it names"
    return path.resolve()


class Editor(Nvim):
    """Neovim with the plugin, as a user has it who wrote one line into their configuration."""

    def __init__(self, version: str, home: pathlib.Path, options: dict | None = None, **more):
        self.version = version
        self.home = home
        (home / ".git").mkdir(parents=True, exist_ok=True)
        arguments = more.pop("arguments", ["--clean", "--cmd", f"set runtimepath^={ROOT}"])
        env = {
            **os.environ,
            **{f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "STATE", "CACHE")},
            "GEMMA_LS_MODELS": str(required("GEMMA_LS_TEST_MODEL").parent),
            **more.pop("env", {}),
        }
        program = os.environ[f"NVIM_{version.replace('.', '_')}"]
        super().__init__(program, arguments, env=env, cwd=home, **more)
        # What a user is told is kept, and does not wait for Enter.
        self.lua("_G.told = {} vim.notify = function(text) table.insert(_G.told, text) end")
        if options is not None:
            self.setup(options)

    def options(self, options: dict) -> str:
        """Options of `setup`, with the server and the model of the tests, as JSON."""
        settings = {"model": str(required("GEMMA_LS_TEST_MODEL")), **UNHURRIED, **options.pop("settings", {})}
        return json.dumps({"cmd": [str(required("GEMMA_LS_BIN")), "lsp"], **options, "settings": settings})

    def setup(self, options: dict):
        self.lua("require('gemma').setup(vim.json.decode(...))", self.options(options))

    def told(self) -> str:
        """What the user was told."""
        return "\n".join(self.lua("return _G.told"))

    def said(self) -> str:
        """The text of the conversation, where its window is open."""
        return self.lua(
            """
            for _, win in ipairs(vim.api.nvim_list_wins()) do
              local buf = vim.api.nvim_win_get_buf(win)
              if vim.bo[buf].filetype == 'gemma-chat' then
                return table.concat(vim.api.nvim_buf_get_lines(buf, 0, -1, true), '\\n')
              end
            end
            return ''
            """
        )

    def ask(self, method: str, params: dict | None = None):
        """What the server answers."""
        return self.lua(
            """
            local method, params = ...
            local client = require('gemma.client').get()
            if not (client and client.initialized) then return end
            local answer = client:request_sync(method, vim.json.decode(params), 100000)
            return answer and answer.result
            """,
            method,
            json.dumps(params or {"_": 0}),
        )

    def ready(self):
        """Waits for the model."""
        self.until(
            lambda: (self.ask("gemma/status") or {}).get("model", {}).get("state") == "ready", "the model"
        )

    def open(self, name: str, text: str):
        """Opens a new file with this text, and waits until the server has it."""
        self.keys("<C-\\><C-n>")
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.command("silent! %bwipeout!")
        self.command(f"edit {path}")
        self.until_lua(
            "local c = vim.lsp.get_clients({ name = 'gemma', bufnr = 0 })[1]; return c and c.initialized",
            "the server to have the file",
        )

    def suggest(self, text: str = PYTHON, name: str = "fibonacci.py", keys: str = "5GAreturn fib") -> str:
        """Grey text in a new file: behind the keys, on the screen."""
        self.open(name, text)
        self.keys(keys)
        return self.grey()


@pytest.fixture(scope="session", params=VERSIONS)
def shared(request, tmp_path_factory):
    """One editor for all tests that leave it as they find it."""
    keymaps = {
        "accept": "<Tab>",
        "accept_word": "<C-l>",
        "accept_line": "<C-j>",
        "next": "<C-n>",
        "dismiss": "<C-x>",
    }
    editor = Editor(request.param, tmp_path_factory.mktemp("nvim"), {"keymaps": keymaps})
    editor.open("first.py", PYTHON)
    editor.ready()
    yield editor
    editor.close()


@pytest.fixture
def nvim(shared):
    yield shared
    shared.keys("<C-\\><C-n>")
    shared.command("silent! %bwipeout!")


@pytest.fixture(scope="session", params=VERSIONS)
def made_up(request, tmp_path_factory):
    from made_up import MadeUp

    made_up = MadeUp(request.param, tmp_path_factory.mktemp("made-up"))
    yield made_up
    made_up.nvim.close()


@pytest.fixture(params=VERSIONS)
def fresh(request, tmp_path):
    """Begins an editor with options of the test's own."""
    editors = []

    def begin(options: dict | None = None, **more) -> Editor:
        editors.append(Editor(request.param, tmp_path, options, **more))
        return editors[-1]

    yield begin
    for editor in editors:
        editor.close()
