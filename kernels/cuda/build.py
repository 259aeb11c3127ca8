#!/usr/bin/env python3
"""Compiles the CUDA kernels to what the program carries, kernels/prebuilt.

    kernels/cuda/build.py            compiles what has changed
    kernels/cuda/build.py --check    compiles all aside, and fails where that gives other bytes or a kernel spills

It needs Python 3.10 and pip, and neither a GPU nor a CUDA toolkit: the compiler is NVRTC from PyPI, of the version
that is pinned here, so that the same sources give the same bytes everywhere on x86-64 Linux. The packages are
installed into a folder of their own once (--packages, by default in cargo's target folder). Every kernel's
registers, shared memory and spills are printed and kept in manifest.json.
"""

import argparse
import ctypes
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
PREBUILT = SOURCES.parent / "prebuilt"

# 12.x, so that drivers from 525 on load what it makes; 12.9 knows sm_120.
PACKAGES = ("nvidia-cuda-nvrtc-cu12==12.9.86", "nvidia-cuda-runtime-cu12==12.9.79")
COMPILER = "NVRTC 12.9.86"
OPTIONS = ("-std=c++17",)

# Machine code runs on devices of its own major version from its minor version on (but that of sm_90a, which runs on
# 9.0 only); PTX is compiled by the driver of whatever comes later.
CUBINS = ("sm_80", "sm_90a", "sm_120")
PTX = "compute_80"
# Where kernels wait by themselves for what was launched before them.
WAITING = ("sm_90a", "sm_120")
TARGETS = (*CUBINS, PTX)

# What the manifest begins with.
HEAD = {"compiler": COMPILER, "options": list(OPTIONS), "targets": list(TARGETS)}

KERNEL = re.compile(r"^KERNEL(?:_OF\([^)]*\))?\s+(\w+)\s*\(", re.MULTILINE)
INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"', re.MULTILINE)
# A kernel without bounds of its own may be launched with as many threads.
MOST_THREADS = 1024


class Failure(Exception):
    """Something to tell and to end with."""


def image_name(stem: str, target: str) -> str:
    """The file with the image of a source for a target."""
    return f"{stem}.{target}.{'ptx' if target == PTX else 'cubin'}.z"


@dataclass(frozen=True)
class Unit:
    """A source for a target."""

    source: str
    target: str
    packages: str


def packages(folder: Path) -> None:
    """Installs the compiler into a folder unless it is there."""
    stamp = folder / "installed"
    wanted = "\n".join(PACKAGES)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, "--upgrade", "--target", str(folder), *PACKAGES], check=False)
    if done.returncode:
        raise Failure("pip could not install " + " and ".join(PACKAGES))
    stamp.write_text(wanted)


def headers(source: str) -> dict[str, str]:
    """The headers of ours that a source includes, and those that they include, by name."""
    found: dict[str, str] = {}
    waiting = [source]
    while waiting:
        text = (SOURCES / waiting.pop()).read_text()
        for name in INCLUDE.findall(text):
            # The emulation's stand in the branch that no CUDA compiler takes.
            if name not in found and not name.startswith("emulate/"):
                found[name] = (SOURCES / name).read_text()
                waiting.append(name)
    return dict(sorted(found.items()))


def digest(source: str) -> str:
    """A hash of a source and its headers."""
    whole = hashlib.sha256()
    for name, text in {source: (SOURCES / source).read_text(), **headers(source)}.items():
        whole.update(f"{name}\0{len(text)}\0{text}".encode())
    return whole.hexdigest()


class Nvrtc:
    """The compiler's library. It is given our headers by name, so that no path can reach its output."""

    def __init__(self, folder: Path) -> None:
        self.library = ctypes.CDLL(str(folder / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"))
        self.include = folder / "nvidia/cuda_runtime/include"

    def text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw

    def compile(self, source: str, target: str) -> tuple[bytes, str, str]:
        """The image, the intermediate PTX and the log of a source for a target."""
        own = headers(source)
        names = (ctypes.c_char_p * len(own))(*(name.encode() for name in own))
        texts = (ctypes.c_char_p * len(own))(*(text.encode() for text in own.values()))
        text = (SOURCES / source).read_text().encode()
        program = ctypes.c_void_p()
        made = self.library.nvrtcCreateProgram(
            ctypes.byref(program), text, source.encode(), len(own), texts, names
        )
        if made:
            raise Failure(f"{source}: NVRTC does not take it ({made})")
        options = [*OPTIONS, f"--gpu-architecture={target}", "--ptxas-options=-v", f"-I{self.include}"]
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = self.library.nvrtcCompileProgram(program, len(options), arguments)
        log = self.text(program, "ProgramLog").decode().rstrip("\0\n")
        if failed:
            raise Failure(f"{source} for {target}:\n{log}")
        ptx = self.text(program, "PTX").rstrip(b"\0")
        image = ptx if target == PTX else self.text(program, "CUBIN")
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return image, ptx.decode(), log


def entries(ptx: str) -> dict[str, tuple[str, str]]:
    """What stands between each kernel's parameters and its body, and the body."""
    found = re.findall(r"\.entry (\w+)\(.*?\)\n?(.*?)\n\{(.*?)\n\}", ptx, re.DOTALL)
    return {name: (bounds, body) for name, bounds, body in found}


def threads(bounds: str) -> int:
    """The threads that a block of a kernel may have."""
    return int((re.findall(r"\.maxntid (\d+)", bounds) or [MOST_THREADS])[0])


def usage(log: str) -> dict[str, dict[str, int]]:
    """What ptxas says of each kernel."""
    found: dict[str, dict[str, int]] = {}
    for name, about in re.findall(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", log, re.DOTALL):
        number = lambda pattern: int((re.findall(pattern, about) or ["0"])[0])  # noqa: E731
        found[name] = {
            "registers": number(r"Used (\d+) registers"),
            "shared": number(r"(\d+) bytes smem"),
            "stack": number(r"(\d+) bytes stack frame"),
            "spills": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        }
    return found


def build(unit: Unit) -> tuple[Unit, bytes, dict[str, dict[str, int]], str]:
    """Compiles a unit: its image, what its kernels use, and what the compiler warned of."""
    image, ptx, log = Nvrtc(Path(unit.packages)).compile(unit.source, unit.target)
    kernels = {}
    for name, use in usage(log).items():
        bounds, body = entries(ptx)[name]
        # A launch may begin before the one in front of it has ended; one that never waits would let the next one begin
        # before both have.
        if unit.target in WAITING and "griddepcontrol.wait" not in body:
            raise Failure(f"{unit.source}: {name} does not wait for the launch before it")
        kernels[name] = {**use, "threads": threads(bounds)}
    warnings = "\n".join(line for line in log.splitlines() if "warning" in line)
    return unit, image, kernels, warnings


def build_all(into: Path, installed: Path, kept: dict[str, dict]) -> dict:
    """Compiles everything but what is kept into a folder, the longest first, and gives the manifest."""
    sources = sorted(path.name for path in SOURCES.glob("*.cu"))
    sizes = {source: (SOURCES / source).stat().st_size for source in sources}
    units = [Unit(source, target, str(installed)) for source in sources if source not in kept for target in TARGETS]
    units.sort(key=lambda unit: -sizes[unit.source])
    uses: dict[str, dict[str, dict]] = {}
    with multiprocessing.Pool(min(2, os.cpu_count() or 1)) as pool:
        for unit, image, kernels, warnings in pool.imap_unordered(build, units):
            (into / image_name(Path(unit.source).stem, unit.target)).write_bytes(zlib.compress(image, 9))
            if warnings:
                print(f"{unit.source} for {unit.target}: {warnings}", file=sys.stderr)
            for kernel, use in kernels.items():
                uses.setdefault(kernel, {})[unit.target] = use
    manifest = {**HEAD, "sources": {}}
    for source in sources:
        manifest["sources"][source] = kept.get(source) or entry(source, uses)
    (into / "manifest.json").write_text(manifest_text(manifest))
    (into / "images.rs").write_text(images_text(manifest))
    return manifest


def entry(source: str, uses: dict[str, dict[str, dict]]) -> dict:
    """What the manifest says of a source."""
    names = KERNEL.findall((SOURCES / source).read_text())
    lost = [name for name in names if set(uses.get(name, ())) != set(CUBINS)]
    if lost:
        raise Failure(f"{source}: the compiler made no {', '.join(lost)}")
    return {"sha256": digest(source), "kernels": {name: {t: uses[name][t] for t in CUBINS} for name in names}}


def unchanged(into: Path) -> dict[str, dict]:
    """Takes over what was compiled from the same sources with the same compiler: the manifest's part of it."""
    file = PREBUILT / "manifest.json"
    manifest = json.loads(file.read_text()) if file.is_file() else {}
    if {key: manifest.get(key) for key in HEAD} != HEAD:
        return {}
    kept = {}
    for source, about in manifest["sources"].items():
        images = [PREBUILT / image_name(Path(source).stem, target) for target in TARGETS]
        if (SOURCES / source).is_file() and about["sha256"] == digest(source) and all(map(Path.is_file, images)):
            kept[source] = about
            for image in images:
                shutil.copy(image, into)
    return kept


def manifest_text(manifest: dict) -> str:
    """The manifest as JSON, a line for each kernel and target."""
    text = json.dumps(manifest, indent=1)
    return re.sub(r"\{\s+(\"registers\"[^}]*?)\s+\}", lambda m: "{" + " ".join(m[1].split()) + "}", text) + "\n"


def images_text(manifest: dict) -> str:
    """The table that the program is built with."""
    lines = ["// What lies in this folder, made by kernels/cuda/build.py.", "["]
    for source, about in manifest["sources"].items():
        stem = Path(source).stem
        lines.append("    Source {")
        lines.append(f"        name: \"{stem}\",")
        lines.append("        kernels: &[")
        lines.extend(f"            \"{kernel}\"," for kernel in about["kernels"])
        lines.append("        ],")
        for target in TARGETS:
            lines.append(f"        {target}: include_bytes!(\"{image_name(stem, target)}\"),")
        lines.append("    },")
    return "\n".join([*lines, "]", ""])


def table(manifest: dict) -> str:
    """What each kernel uses on each target."""
    rows = [("kernel", "threads", *CUBINS)]
    for about in manifest["sources"].values():
        for kernel, targets in about["kernels"].items():
            cells = []
            for use in targets.values():
                cell = f"{use['registers']}r {use['shared']}s"
                cell += f" {use['stack']}l" if use["stack"] else ""
                cell += f" {use['spills']} SPILLED" if use["spills"] else ""
                cells.append(cell)
            rows.append((kernel, str(targets[CUBINS[0]]["threads"]), *cells))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "r registers, s bytes of static shared memory, l bytes of stack"])


def spilled(manifest: dict) -> list[str]:
    """Kernels that keep in memory what has no room in registers."""
    kernels = [item for about in manifest["sources"].values() for item in about["kernels"].items()]
    return [f"{name} on {target}" for name, targets in kernels for target, use in targets.items() if use["spills"]]


def differences(one: Path, other: Path) -> list[str]:
    """Files that are in one folder only, or do not hold the same in both."""
    names = {path.name for folder in (one, other) for path in folder.iterdir()} - {"README.md"}
    return sorted(name for name in names if content(one / name) != content(other / name))


def take_over(aside: Path, names: list[str]) -> None:
    """Makes these files what they are in another folder, where they may be missing."""
    for name in names:
        if (aside / name).is_file():
            shutil.copy(aside / name, PREBUILT)
        else:
            (PREBUILT / name).unlink()


def content(path: Path) -> bytes | None:
    """What stands in a file. Not every zlib packs it into the same bytes, so what is packed is compared unpacked."""
    if not path.is_file():
        return None
    return zlib.decompress(path.read_bytes()) if path.suffix == ".z" else path.read_bytes()


def default_packages() -> Path:
    """A folder in cargo's target folder."""
    target = os.environ.get("CARGO_TARGET_DIR") or SOURCES.parents[1] / "target"
    return Path(target) / "nvrtc"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compile aside and compare")
    parser.add_argument("--packages", type=Path, default=default_packages(), help="where the compiler is, or goes")
    arguments = parser.parse_args()
    try:
        packages(arguments.packages)
        with tempfile.TemporaryDirectory() as aside:
            kept = {} if arguments.check else unchanged(Path(aside))
            manifest = build_all(Path(aside), arguments.packages.resolve(), kept)
            print(table(manifest))
            problems = [f"{kernel} spills registers" for kernel in spilled(manifest)]
            different = differences(Path(aside), PREBUILT)
            if arguments.check:
                problems += [f"{name} is not what the sources give" for name in different]
            else:
                take_over(Path(aside), different)
                print(f"{len(different)} files have changed")
    except Failure as failure:
        problems = [str(failure)]
    for problem in problems:
        print(f"build.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
