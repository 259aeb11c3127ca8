"""Prefill and decoding of gemma-ls and of llama-server, in tokens a second."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from . import ours as gemma_ls
from .numbers import row
from .server import Server


def run(args: argparse.Namespace, binary: Path) -> dict[str, Any]:
    measure = theirs_prefill if args.what == "prefill" else theirs_decode
    ours: list[float] = []
    theirs: list[float] = []
    facts: dict[str, Any] = {}
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
        ours.append(ours_once(args))
        with Server(binary, args.model, args.threads, args.tokens + args.at + 64, args.server_args) as server:
            # Once for warmth: weights are read from the disk, pages are touched.
            measure(server, args, 0)
            theirs.append(statistics.median(measure(server, args, kind) for kind in range(1, 4)))
            facts = server.facts()
    return {
        "setup": {
            "what": args.what, "model": args.model.name, "threads": args.threads, "tokens": args.tokens,
            "rounds": args.rounds, "llama_server": facts,
        },
        "ours": {"tokens_per_s": statistics.median(ours), "all": ours},
        "theirs": {"tokens_per_s": statistics.median(theirs), "all": theirs},
        "ratio": statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True)),
    }


def ours_once(args: argparse.Namespace) -> float:
    common = [str(args.model), "--threads", str(args.threads), "--rounds", "3"]
    if args.what == "prefill":
        more = ["--prefill", str(args.tokens), "--decode-at", "16", "--tokens", "2"]
        return float(gemma_ls.run(args.time_model, [*common, *more])["prefill"]["tokens_per_s"])
    more = ["--prefill", "16", "--decode-at", str(args.at), "--tokens", str(args.tokens)]
    return 1000 / float(gemma_ls.run(args.time_model, [*common, *more])["decode"][0]["ms_per_token"])


def prompt(length: int, kind: int) -> list[int]:
    """Ids as time-model asks for: prompts of different kinds differ from their second token on."""
    return [2, *(256 + (i * 7919 + 104_729 * (kind + 1)) % 255_000 for i in range(1, length))]


def theirs_prefill(server: Server, args: argparse.Namespace, kind: int) -> float:
    answer = server.complete(prompt(args.tokens, kind), 1, keep=False)
    return answer.computed / answer.prefill_ms * 1000


def theirs_decode(server: Server, args: argparse.Namespace, kind: int) -> float:
    answer = server.complete(prompt(args.at, kind), args.tokens)
    return (answer.generated - 1) / (answer.total_ms - answer.first_ms) * 1000


def table(report: dict[str, Any]) -> str:
    setup, ours, theirs = report["setup"], report["ours"], report["theirs"]
    return "\n".join([
        f"{setup['what']}, {setup['model']}, {setup['threads']} threads, {setup['tokens']} tokens, "
        f"{setup['rounds']} rounds; llama-server {setup['llama_server']['build']}",
        row("gemma-ls, tokens/s", [ours["tokens_per_s"], *ours["all"]]),
        row("llama-server, tokens/s", [theirs["tokens_per_s"], *theirs["all"]]),
        row("ratio", [report["ratio"]]),
    ])
