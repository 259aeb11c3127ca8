"""An editing session through gemma-ls and through llama-server: what each keystroke costs."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import ours as gemma_ls
from .numbers import PERCENTILES, median_of, percentiles, row
from .server import Answer, Server
from .trace import Place, replay, window

BOS = 2
# Room for the prompt's control tokens, its path and the answer.
AROUND = 256

# One request of ours, as `gemma-ls bench keystroke --json` tells it.
Ours = dict[str, Any]


def run(args: argparse.Namespace, server: Path) -> dict[str, Any]:
    orders = ["psm", "spm"] if args.order == "both" else [args.order]
    rounds: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    for number in range(args.rounds):
        this: dict[str, Any] = {"ours": {}, "theirs": {}}
        for order in orders:
            print(f"round {number + 1} of {args.rounds}, {order} order: gemma-ls", file=sys.stderr)
            this["ours"][order] = ask_ours(args, order)
            print(f"round {number + 1} of {args.rounds}, {order} order: llama-server", file=sys.stderr)
            this["theirs"][order], facts = ask_theirs(args, order, server)
        rounds.append(this)
    # Each order against the same one, and what we would run against what most of their clients run.
    pairs = [(order, order) for order in orders] + ([("spm", "psm")] if len(orders) == 2 else [])
    return {
        "setup": {
            "trace": args.trace.stem, "model": args.model.name, "threads": args.threads, "rounds": args.rounds,
            "requests": len(rounds[0]["ours"][orders[0]]), "max_tokens": args.max_tokens,
            "prefix_tokens": args.prefix_tokens, "suffix_tokens": args.suffix_tokens, "as_shipped": args.as_shipped,
            "llama_server": facts,
        },
        "compared": [
            {"ours": mine, "theirs": other, "rows": compare(rounds, mine, other, args.max_tokens)}
            for mine, other in pairs
        ],
        "rounds": [
            {
                "ours": this["ours"],
                "theirs": {o: [dataclasses.asdict(a) for a in answers] for o, answers in this["theirs"].items()},
            }
            for this in rounds
        ],
    }


def ask_ours(args: argparse.Namespace, order: str) -> list[Ours]:
    arguments = [
        "bench", "keystroke", "--trace", str(args.trace), "--model", str(args.model), "--order", order,
        "--threads", str(args.threads), "--max-tokens", str(args.max_tokens), "--json",
        "--fim-ids", ",".join(map(str, args.fim_ids)),
    ]
    if args.limit:
        arguments += ["--limit", str(args.limit)]
    budgets = {"prefixTokens": args.prefix_tokens, "suffixTokens": args.suffix_tokens, "otherFilesTokens": 0}
    requests: list[Ours] = gemma_ls.run(args.gemma_ls, arguments, {} if args.as_shipped else budgets)["requests"]
    return requests


def ask_theirs(args: argparse.Namespace, order: str, binary: Path) -> tuple[list[Answer], dict[str, Any]]:
    context = args.prefix_tokens + args.suffix_tokens + args.max_tokens + AROUND
    answers: list[Answer] = []
    with Server(binary, args.model, args.threads, context, args.server_args) as server:
        for place in replay(args.trace, args.limit):
            answers.append(server.complete(prompt(place, order, args, server), args.max_tokens))
        return answers, server.facts()


def prompt(place: Place, order: str, args: argparse.Namespace, server: Server) -> list[int]:
    """The same layout as ours: `<bos>` path, then prefix and suffix in their order. The texts are cut into tokens
    before the clock starts."""
    prefix_id, middle_id, suffix_id, _ = args.fim_ids
    before, after = window(place, args.prefix_tokens, args.suffix_tokens, server.count)
    prefix, suffix = server.tokens(before), server.tokens(after)
    head = [BOS, *server.tokens(f"{place.path}\n"), prefix_id]
    if order == "psm":
        return [*head, *prefix, suffix_id, *suffix, middle_id]
    return [*head, suffix_id, *suffix, middle_id, *prefix]


def compare(rounds: list[dict[str, Any]], mine: str, other: str, max_tokens: int) -> list[dict[str, Any]]:
    """Rows of percentiles, ours beside theirs, each the median over the rounds."""

    def every(request: Ours) -> bool:
        return request["tokens_computed"] is not None

    def asked(request: Ours) -> bool:
        return request["tokens_asked"] is not None

    def full(request: Ours) -> bool:
        return bool(request["decode_tokens"] == max_tokens)

    def several(request: Ours) -> bool:
        return (request["decode_tokens"] or 0) > 1

    def per_token(request: Ours) -> float | None:
        tokens = (request["decode_tokens"] or 0) - 1
        return (request["total_ms"] - request["ttft_ms"]) / tokens if tokens > 0 else None

    def at_that_pace(request: Ours) -> float | None:
        further = per_token(request)
        return None if further is None else request["ttft_ms"] + (max_tokens - 1) * further

    kinds: list[tuple[str, Callable[[Ours], bool], Callable[[Ours], float | None], Callable[[Answer], float]]] = [
        ("tokens of the prompt", asked, lambda r: r["tokens_asked"], lambda a: a.asked),
        ("tokens computed", every, lambda r: r["tokens_computed"], lambda a: a.computed),
        ("tokens computed, model asked", asked, lambda r: r["tokens_computed"], lambda a: a.computed),
        ("first token, ms", every, lambda r: r["ttft_ms"], lambda a: a.first_ms),
        ("first token, ms, model asked", asked, lambda r: r["ttft_ms"], lambda a: a.first_ms),
        (f"token {max_tokens}, ms, ours that long", full, lambda r: r["total_ms"], lambda a: a.total_ms),
        ("a further token, ms", several, per_token, lambda a: (a.total_ms - a.first_ms) / max(a.generated - 1, 1)),
        (f"token {max_tokens} at that pace, ms", several, at_that_pace, lambda a: a.total_ms),
        ("whole answer, ms", every, lambda r: r["total_ms"], lambda a: a.total_ms),
    ]
    rows = []
    for name, counts, of_ours, of_theirs in kinds:
        left, right, requests = [], [], 0
        for this in rounds:
            # The same requests on both sides.
            both = [(r, a) for r, a in zip(this["ours"][mine], this["theirs"][other], strict=True) if counts(r)]
            left.append(percentiles(of_ours(r) for r, _ in both))
            right.append(percentiles(of_theirs(a) for _, a in both))
            requests = len(both)
        us, them = median_of(left), median_of(right)
        rows.append({
            "name": name, "requests": requests, "ours": us, "theirs": them,
            "ratio": us["p50"] / them["p50"] if us and them and them["p50"] else None,
        })
    return rows


def table(report: dict[str, Any]) -> str:
    setup = report["setup"]
    lines = [
        f"{setup['trace']}, {setup['model']}, {setup['threads']} threads, {setup['requests']} requests, "
        f"median of {setup['rounds']} rounds; llama-server {setup['llama_server']['build']}",
        f"{'':<60}{'gemma-ls':^18}{'':>9}{'llama-server':^18}",
    ]
    for pair in report["compared"]:
        lines.append(f"\nours in {pair['ours']} order, theirs in {pair['theirs']} order")
        lines.append(f"{'':<42}{'requests':>9}" + "".join(f"{p:>9}" for p in [*PERCENTILES, *PERCENTILES, "ratio"]))
        for entry in pair["rows"]:
            cells = [(entry[side] or {}).get(p) for side in ("ours", "theirs") for p in PERCENTILES]
            lines.append(row(entry["name"], [entry["requests"], *cells, entry["ratio"]]))
    return "\n".join(lines)
