"""An editing session, replayed: what each document says at each completion, and the window that is shown of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = "gemma-ls-trace/1"
PROJECT = "file:///project/"

# Tokens of the prefix's budget that are left for the line with the cursor.
CURSOR_LINE = 64


@dataclass
class Place:
    """Where a completion is asked for."""

    path: str
    before: str
    after: str


def offset(text: str, position: dict[str, int]) -> int:
    """A position of the protocol (UTF-16) as an offset in code points."""
    start = 0
    for _ in range(position["line"]):
        start = text.index("\n", start) + 1
    units = position["character"]
    while units > 0:
        units -= 2 if text[start] > "\uffff" else 1
        start += 1
    return start


def replay(file: Path, limit: int | None) -> Iterator[Place]:
    """The places of a trace's completions, in order, each with the text as it is then."""
    with file.open(encoding="utf-8") as lines:
        header = json.loads(next(lines))
        if header.get("format") != FORMAT:
            raise ValueError(f"{file}: not in the format {FORMAT}")
        texts = {document["uri"]: document["text"] for document in header["documents"]}
        done = 0
        for event in map(json.loads, lines):
            uri = event["uri"]
            if event["event"] == "change":
                for change in event["changes"]:
                    texts[uri] = changed(texts[uri], change)
            elif event["event"] == "complete":
                at = offset(texts[uri], event["position"])
                yield Place(uri.removeprefix(PROJECT), texts[uri][:at], texts[uri][at:])
                done += 1
                if done == limit:
                    return


def changed(text: str, change: dict[str, Any]) -> str:
    start, end = (offset(text, change["range"][side]) for side in ("start", "end"))
    return text[:start] + change["text"] + text[end:]


def lines(text: str) -> tuple[list[str], str]:
    """The lines of a text with their ends, and what stands behind the last end."""
    *ended, last = text.split("\n")
    return [line + "\n" for line in ended], last


def window(place: Place, prefix: int, suffix: int, count: Callable[[str], int]) -> tuple[str, str]:
    """What is shown of a document: whole lines within budgets of tokens, as llama.cpp's own editor plugins choose
    so many lines. The line with the cursor is always shown, and its length moves nothing: the window stands still
    while a line is typed, and slides when the cursor comes to another."""
    above, line = lines(place.before)
    left, start = prefix - CURSOR_LINE, len(above)
    while start > 0 and (cost := count(above[start - 1])) <= left:
        left -= cost
        start -= 1
    below, last = lines(place.after)
    rest, *below = [*below, last]
    left, end = suffix - count(rest), 0
    while end < len(below) and (cost := count(below[end])) <= left:
        left -= cost
        end += 1
    return "".join(above[start:]) + line, rest + "".join(below[:end])
