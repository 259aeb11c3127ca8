"""candle-transformers' quantised Gemma 3 as a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .server import Trouble

FOLDER = Path(__file__).resolve().parent.parent / "candle"
VERSION = "0.11.1"
# candle's kernels are chosen when it is compiled.
PROCESSORS = {None: "native", "avx2": "haswell", "avx512": "native", "amx": "native"}


def build(cache: Path, level: str | None) -> Path:
    """The program in the folder beside this one, compiled with all the instructions that candle can use."""
    target = cache / "candle-rival"
    command = ["cargo", "build", "--release", "--locked", "--target-dir", str(target)]
    print(f"compiling candle in {target}", file=sys.stderr)
    flags = {"RUSTFLAGS": f"-C target-cpu={PROCESSORS[level]}"}
    if subprocess.run(command, cwd=FOLDER, env={**os.environ, **flags}, stdout=sys.stderr, check=False).returncode:
        raise Trouble("candle did not compile")
    return target / "release" / "candle-rival"


def run(binary: Path, arguments: list[str], threads: int) -> dict[str, Any]:
    """Runs it; it prints one JSON object."""
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    done = subprocess.run([binary, *arguments], capture_output=True, check=False, env=environment)
    if done.returncode:
        raise Trouble(f"candle failed:\n{done.stderr.decode(errors='replace').strip()}")
    return json.loads(done.stdout)
