#!/usr/bin/env python3
"""Stands in for `gemma-ls` on an editor's PATH: starts the real one and keeps a copy of what both sides say."""

import os
import subprocess
import sys
import threading


def copy(source: int, sink: int, log: str):
    """Passes bytes on as they come."""
    with open(log, "ab", buffering=0) as kept:
        while chunk := os.read(source, 1 << 16):
            kept.write(chunk)
            while chunk:
                chunk = chunk[os.write(sink, chunk) :]


def feed(server: subprocess.Popen, log: str):
    """Passes on what the editor says, until it stops."""
    try:
        copy(0, server.stdin.fileno(), log)
    except BrokenPipeError:
        pass
    server.stdin.close()


def main():
    log = os.environ["GEMMA_LS_TAP"]
    command = [os.environ["GEMMA_LS_BIN"], *sys.argv[1:]]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    threading.Thread(target=feed, args=(server, f"{log}.in"), daemon=True).start()
    try:
        copy(server.stdout.fileno(), 1, f"{log}.out")
    except BrokenPipeError:
        pass
    # Not sys.exit: the editor may never close its side.
    os._exit(server.wait())


main()
