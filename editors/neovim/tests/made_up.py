"""An editor with a server whose answers are made up, and a conversation to have with it."""

import json
import pathlib
import sys

from conftest import Editor

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
        # The server is never to read half of them.
        written = self.home / "answers.new"
        written.write_text(json.dumps({"count": self.count, **answers}))
        written.replace(self.home / "answers")

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
        context = {
            "path": "numbers.py",
            "lines": {"first": 1, "last": 7, "of": 7},
            "turns": 0,
            "promptTokens": 42,
        }
        return {
            "chatId": "",
            "model": "made-up",
            "text": TEXT,
            "finishReason": "stop",
            "context": context,
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
        text = self.heard_file.read_text() if self.heard_file.exists() else ""
        # What follows the last end of a line is still being written.
        messages = map(json.loads, text.split("\n")[:-1])
        return [message.get("params") for message in messages if message.get("method") == method]


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
