"""How long a user waits: from the start of the editor with a file to the first grey text, keys typed at once.

The server and its model start with the editor; files that were read before may still be in the system's memory.
"""

import pathlib
import statistics
import sys
import tempfile
import time

from conftest import PYTHON, VERSIONS, Editor

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 5

# The time that `setup` takes, as Neovim's own clock has it; the model's is noted when it comes.
SETUP = """
local begun = vim.uv.hrtime()
vim.api.nvim_create_autocmd('User', { pattern = 'GemmaStatus', callback = function()
  if require('gemma.status').current.state == 'ready' then
    vim.g.gemma_ready = vim.g.gemma_ready or (vim.uv.hrtime() - begun) / 1e6
  end
end })
vim.cmd.runtime('plugin/gemma.lua')
require('gemma').setup(vim.json.decode(...))
return (vim.uv.hrtime() - begun) / 1e6
"""


def run(version: str) -> dict:
    """One start, in milliseconds."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = pathlib.Path(folder)
        file = home / "fibonacci.py"
        file.write_text(PYTHON)
        begun = time.perf_counter()
        nvim = Editor(version, home)
        editor = time.perf_counter() - begun
        try:
            setup = nvim.lua(SETUP, nvim.options({}))
            nvim.command(f"edit {file}")
            nvim.keys("5GAreturn fib")
            nvim.grey()
            grey = time.perf_counter() - begun
            ready = editor * 1e3 + nvim.lua("return vim.g.gemma_ready")
            return {
                "editor": editor * 1e3,
                "setup alone": setup,
                "model ready": ready,
                "grey text": grey * 1e3,
            }
        finally:
            nvim.close()


for version in VERSIONS:
    runs = [run(version) for _ in range(RUNS)]
    print(f"Neovim {version}, {RUNS} runs, medians (and ranges) in milliseconds from the start:")
    for name in runs[0]:
        values = [times[name] for times in runs]
        print(f"  {name:22} {statistics.median(values):7.1f}   ({min(values):.1f} to {max(values):.1f})")
