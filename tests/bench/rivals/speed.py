"""Prefill, passes of few tokens, and decoding of gemma-ls and of a rival, in tokens a second."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any, Protocol

from . import candle
from . import ours as gemma_ls
from .numbers import row
from .server import Server, Trouble

# Tokens a second, by how many tokens a pass has, or how many are decoded.
Speeds = dict[int, float]


class Rival(Protocol):
    """Who is compared with."""

    name: str
    facts: dict[str, Any]

    def measure(self, args: argparse.Namespace) -> Speeds:
        """Runs it once, started anew."""


class LlamaCpp:
    """llama.cpp's server, by its own clock where there is one."""

    name = "llama-server"

    def __init__(self, binary: Path) -> None:
        self._binary = binary
        self.facts: dict[str, Any] = {}

    def measure(self, args: argparse.Namespace) -> Speeds:
        context = max(args.sizes) + args.at + 64
        with Server(self._binary, args.model, args.threads, context, args.server_args) as server:
            self.facts = server.facts()
            return {size: self._median(server, args, size) for size in args.sizes}

    def _median(self, server: Server, args: argparse.Namespace, size: int) -> float:
        once = {"prefill": self._prefill, "chunks": self._chunk, "decode": self._decode}[args.what]
        # Once for warmth: weights are read from the disk, pages are touched.
        return statistics.median([once(server, args.at, size, kind) for kind in range(4)][1:])

    def _prefill(self, server: Server, _at: int, size: int, kind: int) -> float:
        answer = server.complete(prompt(size, kind), 1, keep=False)
        return answer.computed / answer.prefill_ms * 1000

    def _chunk(self, server: Server, at: int, size: int, kind: int) -> float:
        context = prompt(at, 0)
        server.complete(context, 1)
        answer = server.complete([*context, *prompt(size + 1, 1 + kind + 4 * size)[1:]], 1)
        if answer.computed != size:
            raise Trouble(f"llama-server computed {answer.computed} tokens where {size} were new")
        return size / answer.prefill_ms * 1000

    def _decode(self, server: Server, at: int, size: int, kind: int) -> float:
        answer = server.complete(prompt(at, kind), size)
        return (answer.generated - 1) / (answer.total_ms - answer.first_ms) * 1000


class Candle:
    """candle-transformers' quantised Gemma 3."""

    name = "candle"

    def __init__(self, binary: Path) -> None:
        self._binary = binary
        self.facts: dict[str, Any] = {"build": candle.VERSION}

    def measure(self, args: argparse.Namespace) -> Speeds:
        [size] = args.sizes
        if args.what == "prefill":
            more = ["--prefill", str(size), "--decode-at", "16", "--tokens", "2"]
        elif args.what == "decode":
            more = ["--prefill", "16", "--decode-at", str(args.at), "--tokens", str(size)]
        else:
            raise Trouble("candle is compared in prefill and decode only")
        report = candle.run(self._binary, [str(args.model), "--rounds", "3", *more], args.threads)
        return {size: speed(report, args.what)}


def ours_once(args: argparse.Namespace) -> Speeds:
    command = [str(args.model), "--threads", str(args.threads), "--rounds", "3"]
    if args.what == "chunks":
        sizes = ",".join(map(str, args.sizes))
        command += ["--chunks", sizes, "--behind", str(args.at), "--prefill", "16", "--decode-at", "16", "--tokens", "2"]
        chunks = gemma_ls.run(args.time_model, command)["chunks"]
        if any(chunk["computed"] != chunk["tokens"] for chunk in chunks):
            raise Trouble(f"not all of the context was kept: {chunks}")
        return {chunk["tokens"]: chunk["tokens"] / chunk["ms"] * 1000 for chunk in chunks}
    [size] = args.sizes
    if args.what == "prefill":
        command += ["--prefill", str(size), "--decode-at", "16", "--tokens", "2"]
    else:
        command += ["--prefill", "16", "--decode-at", str(args.at), "--tokens", str(size)]
    return {size: speed(gemma_ls.run(args.time_model, command), args.what)}


def speed(report: dict[str, Any], what: str) -> float:
    """Tokens a second of a report of time-model, or of what prints the same."""
    if what == "prefill":
        return float(report["prefill"]["tokens_per_s"])
    return 1000 / float(report["decode"][0]["ms_per_token"])


def run(args: argparse.Namespace, binary: Path) -> dict[str, Any]:
    rival: Rival = Candle(binary) if args.against == "candle" else LlamaCpp(binary)
    ours: list[Speeds] = []
    theirs: list[Speeds] = []
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
        ours.append(ours_once(args))
        theirs.append(rival.measure(args))
    return {
        "setup": {
            "what": args.what, "model": args.model.name, "threads": args.threads, "level": args.level, "at": args.at,
            "rounds": args.rounds, "rival": rival.name, "facts": rival.facts,
        },
        "sizes": [
            {
                "tokens": size,
                "ours": [this[size] for this in ours],
                "theirs": [this[size] for this in theirs],
                "ratio": statistics.median(a[size] / b[size] for a, b in zip(ours, theirs, strict=True)),
            }
            for size in args.sizes
        ],
    }


def prompt(length: int, kind: int) -> list[int]:
    """Ids as time-model asks for: prompts of different kinds differ from their second token on."""
    return [2, *(256 + (i * 7919 + 104_729 * (kind + 1)) % 255_000 for i in range(1, length))]


def table(report: dict[str, Any]) -> str:
    setup = report["setup"]
    behind = f" behind {setup['at']}" if setup["at"] else ""
    lines = [
        f"{setup['what']}{behind}, {setup['model']}, {setup['threads']} threads, level {setup['level'] or 'best'}; "
        f"{setup['rival']} {setup['facts'].get('build')}",
        row("tokens/s: median, then each round", []),
    ]
    for size in report["sizes"]:
        tokens = size["tokens"]
        lines += [
            row(f"{tokens} tokens, gemma-ls", [statistics.median(size["ours"]), *size["ours"]]),
            row(f"{tokens} tokens, {setup['rival']}", [statistics.median(size["theirs"]), *size["theirs"]]),
            row(f"{tokens} tokens, ratio", [size["ratio"]]),
        ]
    return "\n".join(lines)
