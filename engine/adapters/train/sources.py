"""Which files of a folder are worth learning from, and which of them are held out."""
import hashlib
import os
import re
import subprocess
from dataclasses import dataclass

LANGUAGES = {
    "c": "c h", "c++": "cc cpp cxx hpp hh hxx cu cuh", "c#": "cs", "clojure": "clj cljs", "css": "css scss", "dart": "dart",
    "elixir": "ex exs", "erlang": "erl", "go": "go", "haskell": "hs", "html": "html", "java": "java",
    "javascript": "js jsx mjs cjs", "julia": "jl", "kotlin": "kt kts", "lua": "lua", "nix": "nix", "ocaml": "ml mli",
    "perl": "pl pm", "php": "php", "python": "py", "r": "r", "ruby": "rb", "rust": "rs", "scala": "scala", "shell": "sh bash",
    "sql": "sql", "svelte": "svelte", "swift": "swift", "typescript": "ts tsx mts cts", "vue": "vue", "zig": "zig",
}
BY_EXTENSION = {ext: language for language, exts in LANGUAGES.items() for ext in exts.split()}

# Folders that hold other people's code or a build's output where there is no .gitignore to say so.
SKIPPED_FOLDERS = {"node_modules", "target", "build", "dist", "out", "vendor", "third_party", "__pycache__", "venv", "site-packages"}
GENERATED_NAME = re.compile(r"(\.min\.\w+|[._]pb2?\.\w+|_pb2(_grpc)?\.py|\.g\.\w+|\.generated\.\w+|\.bundle\.\w+)$", re.I)
GENERATED_TEXT = re.compile(r"@generated|do not (edit|modify)|auto-?generated|generated (by|from|with|automatically)", re.I)

FEWEST_CHARACTERS = 120
MOST_BYTES = 400_000
LONGEST_LINE = 1000
MEAN_LINE = 160


@dataclass(frozen=True)
class Source:
    """One file: its path below the root, its language, its text with `\\n` line ends."""

    path: str
    language: str
    text: str


def listed_by_git(root):
    """The files git knows or would add, or None where `root` is in no repository."""
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def walked(root):
    found = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in SKIPPED_FOLDERS and not name.startswith(".")]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return found


def why_not(path, raw):
    """Why a file is left out, in two or three words; None where it is taken."""
    if len(raw) > MOST_BYTES:
        return "too long"
    if b"\0" in raw:
        return "binary"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    if len(text.strip()) < FEWEST_CHARACTERS:
        return "too short"
    # A comment at the top says so; the words further down are about something else.
    if GENERATED_NAME.search(path) or GENERATED_TEXT.search("\n".join(text.splitlines()[:5])):
        return "generated"
    lines = text.splitlines()
    if max(map(len, lines)) > LONGEST_LINE or len(text) / len(lines) > MEAN_LINE:
        return "minified or data"
    return None


def collect(root, extensions=None):
    """The sources below `root` and a count of what was left out, by reason.

    `extensions` (without dots) replaces the built-in list. Identical files, but for white space, are taken once.
    """
    paths = listed_by_git(root)
    if paths is None:
        paths = walked(root)
    known = {ext: BY_EXTENSION.get(ext, ext) for ext in extensions} if extensions else BY_EXTENSION
    taken, left, seen = [], {}, set()
    for path in sorted(paths):
        language = known.get(path.rpartition(".")[2].lower()) if "." in os.path.basename(path) else None
        full = os.path.join(root, path)
        if language is None or os.path.islink(full) or not os.path.isfile(full):
            continue
        try:
            with open(full, "rb") as f:
                raw = f.read(MOST_BYTES + 1)
        except OSError:
            left["unreadable"] = left.get("unreadable", 0) + 1
            continue
        reason = why_not(path, raw)
        digest = hashlib.sha256(b"".join(raw.split())).digest()
        if reason is None and digest in seen:
            reason = "a copy"
        if reason is not None:
            left[reason] = left.get(reason, 0) + 1
            continue
        seen.add(digest)
        text = raw.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
        taken.append(Source(path.replace(os.sep, "/"), language, text))
    return taken, left


def split(found, share, seed):
    """(training files, held-out files): whole files, picked by a hash of their path so that a file stays on its side."""
    order = sorted(found, key=lambda s: hashlib.sha256(f"{seed}/{s.path}".encode()).digest())
    held = min(max(1, round(share * len(order))), len(order) - 1) if share > 0 and len(order) > 1 else 0
    return order[held:], order[:held]
