"""gemma-ls as a child process."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .server import Trouble


def run(binary: Path, arguments: list[str], settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """Runs a command of gemma-ls (or time-model) that prints one JSON object."""
    with tempfile.TemporaryDirectory() as folder:
        if settings is not None:
            config = Path(folder) / "config.json"
            config.write_text(json.dumps(settings))
            arguments = [*arguments, "--config", str(config)]
        command = [str(binary), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, env=os.environ)
    if done.returncode:
        raise Trouble(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr.decode(errors='replace').strip()}")
    return json.loads(done.stdout)
