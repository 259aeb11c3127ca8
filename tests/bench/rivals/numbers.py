"""Percentiles, and tables of ours beside theirs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


def percentiles(values: Iterable[float | None]) -> dict[str, float] | None:
    """The least value that so many percent of all are not above; absent values do not count."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return {name: known[max(math.ceil(len(known) * percent / 100) - 1, 0)] for name, percent in PERCENTILES.items()}


def median_of(rounds: list[dict[str, float] | None]) -> dict[str, float] | None:
    """The median over rounds, percentile by percentile."""
    known = [entry for entry in rounds if entry is not None]
    if not known:
        return None
    return {name: statistics.median(entry[name] for entry in known) for name in known[0]}


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    digits = 3 if abs(value) < 1 and value else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def row(name: str, cells: Sequence[float | None]) -> str:
    return f"  {name:<40}" + "".join(f"{shown(cell):>9}" for cell in cells)
