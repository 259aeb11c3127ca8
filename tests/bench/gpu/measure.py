#!/usr/bin/env python3
"""Checks and measures on a GPU what tests/bench/gpu-pack packed; tests/bench/gpu.sh calls it."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# A model, and the formats in which it is measured. What sees pictures comes as a folder in bf16 only.
MODELS = {
    "codegemma-2b": ("bf16", "q4_k", "q8_0", "q4_0"),
    "codegemma-7b": ("bf16", "q4_k"),
    "gemma-2-9b": ("bf16", "q4_k"),
    "recurrentgemma-2b": ("bf16", "q4_k"),
    "paligemma-3b-pt-224": ("bf16",),
}
# Tokens in front of those that are decoded; tokens of a prompt that is read, and in front of them: a file, a line,
# what a key brings.
DECODE_AT = (512, 7900)
PREFILL = ((2048, 0), (32, 0), (4, 2000))
# Its vocabulary is another one, so that no tokenizer of the pack fits.
SEES = "paligemma-3b-pt-224"


class Run:
    """One call of this script."""

    def __init__(self, pack: Path, results: Path, scratch: Path) -> None:
        self.pack = pack
        self.results = results
        self.scratch = scratch
        self.failed = 0
        results.mkdir(parents=True, exist_ok=True)

    def keep(self, name: str, found: dict) -> None:
        """Writes what was found, and counts what failed."""
        self.failed += "error" in found
        (self.results / f"{name}.json").write_text(json.dumps(found, indent=1))

    def call(self, *command: object, env: dict[str, str] | None = None) -> tuple[bool, str, str]:
        """Runs a command: whether it succeeded, what it printed, and its errors."""
        print("+", *command, file=sys.stderr, flush=True)
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, env={**os.environ, **(env or {})}
        )
        return done.returncode == 0, done.stdout, done.stderr

    def json(self, *command: object, env: dict[str, str] | None = None) -> dict:
        """The JSON that a command prints, or its error."""
        succeeded, out, err = self.call(*command, env=env)
        try:
            return json.loads(out) if succeeded else {"error": last_line(err)}
        except json.JSONDecodeError:
            return {"error": last_line(out)}

    def tests(self) -> None:
        """Every kernel against the oracle and the golden models, on the GPU."""
        env = {"GEMMA_LS_TEST_GPU": "1", "GEMMA_LS_TEST_REPOSITORY": str(self.pack / "repository")}
        for program in sorted((self.pack / "tests").iterdir()):
            _, out, err = self.call(program, "--test-threads", 4, env=env)
            counts = re.search(r"(\d+) passed; (\d+) failed", out)
            found = {"passed": int(counts[1]), "failed": int(counts[2])} if counts else {"error": last_line(err)}
            if not counts or found["failed"]:
                found["error"] = ", ".join(re.findall(r"^test (\S+) \.\.\. FAILED", out, re.M)) or last_line(err)
                (self.results / f"{program.name}.log").write_text(out + err)
            self.keep(f"test-{program.name}", {"test": program.name, **found})

    def model(self, name: str, kind: str) -> None:
        """Makes a model, measures it, and takes it away."""
        path = self.scratch / (name if kind == "bf16" else f"{name}-{kind}.gguf")
        tokenizer = self.pack / "tokenizer.json"
        begun = time.monotonic()
        command = [self.pack / "bin/random-model", name, path]
        command += [] if kind == "bf16" else ["--type", kind]
        command += ["--tokenizer", tokenizer] if tokenizer.is_file() and name != SEES else []
        succeeded, _, err = self.call(*command)
        what = {"model": name, "format": kind}
        if not succeeded:
            self.keep(f"{name}-{kind}-made", {**what, "error": last_line(err)})
            return
        print(f"made in {time.monotonic() - begun:.0f} s", file=sys.stderr)
        try:
            self.speeds(what, path)
            if tokenizer.is_file() and name == "codegemma-2b":
                self.keystrokes(what, path)
        finally:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def speeds(self, what: dict, path: Path) -> None:
        """Decoding and reading, ours and PyTorch's."""
        bench = (self.pack / "bin/gemma-ls", "bench")
        device = ("--model", path, "--device", "cuda", "--json")
        stem = f"{what['model']}-{what['format']}"
        for at in DECODE_AT:
            ours = self.json(*bench, "decode", *device, "--at", at, "--tokens", 128)
            self.keep(f"{stem}-decode-{at}", {**what, "what": f"decode at {at}", **numbers(ours)})
        for tokens, behind in PREFILL:
            ours = self.json(*bench, "prefill", *device, "--tokens", tokens, *(("--at", behind) if behind else ()))
            name = f"prefill {tokens}" + (f" behind {behind}" if ours.get("at") == behind else "")
            self.keep(f"{stem}-prefill-{tokens}", {**what, "what": name, **numbers(ours)})
        if what["model"] == SEES:
            found = self.json(self.pack / "bin/time-model", path, "--device", "cuda", "--decode-at", 512)
            picture = found if "error" in found else {"ms": found["picture"]["ms"]}
            self.keep(f"{stem}-picture", {**what, "what": "a picture", **picture})
        if what["format"] == "bf16" and (path / "config.json").is_file():
            at = ",".join(map(str, DECODE_AT))
            theirs = self.json(
                sys.executable, self.pack / "torch_model.py", path / "config.json",
                "--decode-at", at, "--prefill", PREFILL[0][0],
            )
            (self.results / f"{stem}.torch").write_text(json.dumps(theirs))

    def keystrokes(self, what: dict, path: Path) -> None:
        """An editing session through the server."""
        trace = self.pack / "traces/forward-rust.jsonl"
        command = ("--trace", trace, "--model", path, "--device", "cuda", "--limit", 120, "--order", "spm", "--json")
        found = self.json(self.pack / "bin/gemma-ls", "bench", "keystroke", *command)
        asked = found.get("summary", {}).get("asked_of_model") or {}
        first = (asked.get("ttft_ms") or {}).get("p50")
        row = {**what, "what": "first token of a key", "ms": first, "device": found.get("device")}
        if first is None:
            row["error"] = found.get("error", "no key asked the model")
        self.keep(f"{what['model']}-{what['format']}-keystroke", row)


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def numbers(report: dict) -> dict:
    """What the table shows of a report of `gemma-ls bench`."""
    if "error" in report:
        return {"error": report["error"]}
    return {
        "ms": report["ms_per_token"] * (report["tokens"] if report["what"] == "prefill" else 1),
        "tokens_per_s": report["tokens_per_s"],
        "gb": report["bytes_per_token"] / 1e9,
        "bandwidth_gb_s": report["bandwidth_gb_s"],
        "of_bandwidth": report["fraction_of_bandwidth"],
        "of_peak": report["fraction_of_peak"],
        "device": report["device"],
    }


def share(number: float | None) -> str:
    return f"{100 * number:.1f} %" if number is not None else ""


def table(results: Path) -> str:
    """All that lies in the folder."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    theirs = {path.stem: json.loads(path.read_text()) for path in results.glob("*.torch")}
    lines = []
    for row in (row for row in found if "test" in row):
        counted = f"{row.get('passed', 0)} passed, {row.get('failed', 0)} failed"
        lines.append(f"{row['test']}: {counted}{': ' + row['error'] if 'error' in row else ''}")
    rows = [("model", "format", "what", "ms", "GB a token", "of bandwidth", "of peak", "PyTorch, ms", "ratio")]
    order = {name: place for place, name in enumerate(MODELS)}
    measured = [row for row in found if "what" in row or ("error" in row and "model" in row)]
    for row in sorted(measured, key=lambda row: (order.get(row["model"], 99), row["format"], row.get("what", ""))):
        if "error" in row:
            rows.append((row["model"], row["format"], row.get("what", "made"), "failed: " + row["error"]))
            continue
        torch = theirs.get(f"{row['model']}-{row['format']}", {}).get(row["what"])
        rows.append((
            row["model"], row["format"], row["what"], f"{row['ms']:.3f}",
            f"{row['gb']:.3f}" if row.get("gb") else "", share(row.get("of_bandwidth")), share(row.get("of_peak")),
            f"{torch:.3f}" if torch else "", f"{row['ms'] / torch:.2f}" if torch else "",
        ))
    widths = [max(len(row[column]) for row in rows if len(row) == len(rows[0])) for column in range(len(rows[0]))]
    lines += ["", *("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)]
    refused = sorted({error["error"] for error in theirs.values() if "error" in error})
    lines += [f"PyTorch was not measured: {reason}" for reason in refused]
    bandwidths = [row["bandwidth_gb_s"] for row in measured if "bandwidth_gb_s" in row]
    if bandwidths:
        lowest, highest = min(bandwidths), max(bandwidths)
        lines.append(f"\nA copy on the device moved {lowest:.0f} to {highest:.0f} GB/s, read and written.")
    return "\n".join(lines)


def parts(wanted: list[str]) -> list[tuple[str, str]]:
    """The tests, or a model and a format, in turn."""
    every = [("tests", "")] + [(name, kind) for name, kinds in MODELS.items() for kind in kinds]
    if not wanted:
        return every
    known = [part for part in every if part[0] in wanted or ":".join(part) in wanted]
    if not known:
        raise SystemExit(f"there is no such part; there are: tests, {', '.join(MODELS)}")
    return known


def scratch_folder() -> Path:
    """Where models are made: in memory if that is large enough for the largest."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 40e9
    return Path(os.environ.get("SCRATCH") or tempfile.mkdtemp(dir=memory if roomy else None))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("parts", nargs="*")
    arguments = parser.parse_args()
    results = Path(os.environ.get("RESULTS") or "gpu-results")
    wanted = parts(arguments.parts)
    run = Run(arguments.pack.resolve(), results, scratch_folder())
    run.scratch.mkdir(parents=True, exist_ok=True)
    try:
        _, doctor, _ = run.call(run.pack / "bin/gemma-ls", "doctor")
        (results / "doctor.txt").write_text((run.pack / "commit").read_text() + doctor)
        for name, kind in wanted:
            run.tests() if name == "tests" else run.model(name, kind)
    finally:
        shutil.rmtree(run.scratch, ignore_errors=True)
    text = f"{time.strftime('%Y-%m-%d')}, {(run.pack / 'commit').read_text().strip()}\n{table(results)}"
    (results / "table.txt").write_text(text + "\n")
    print(text)
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
