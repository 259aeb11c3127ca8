"""llama.cpp's server as a child process, spoken to over HTTP as its clients do."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
START_SECONDS = 300


class Trouble(Exception):
    """What went wrong and what to do, for a person."""


@dataclass
class Answer:
    """What one completion cost."""

    found: int  # tokens of the prompt that were kept from before
    computed: int  # tokens of the prompt that were computed
    generated: int
    first_ms: float  # from sending the request to the first token's arrival
    total_ms: float  # from sending the request to the last token's arrival
    prefill_ms: float  # by the server's own clock
    decode_ms: float  # by the server's own clock: all tokens but the first

    @property
    def asked(self) -> int:
        return self.found + self.computed


def provide(cache: Path) -> Path:
    """The prebuilt llama-server: installed once, with pip, into an environment of its own."""
    environment = cache / "llama-server-venv"
    stamp = environment / "stamp"
    wanted = REQUIREMENTS.read_text()
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing llama-server into {environment}", file=sys.stderr)
        venv.create(environment, clear=True, with_pip=True)
        pip = [environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        done = subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", REQUIREMENTS], check=False)
        if done.returncode:
            raise Trouble("pip could not install llama-server: give your own with --llama-server PATH")
        stamp.write_text(wanted)
    found = sorted(environment.glob("lib/python*/site-packages/*/bin/llama-server"))
    if not found:
        raise Trouble(f"there is no llama-server in {environment}: give your own with --llama-server PATH")
    for file in found[0].parent.iterdir():
        file.chmod(file.stat().st_mode | 0o755)
    return found[0]


class Server:
    """A running llama-server with one slot. A context manager: the process ends with it."""

    def __init__(self, binary: Path, model: Path, threads: int, context: int, more: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._log = tempfile.TemporaryFile()
        self._counts: dict[str, int] = {}
        threads_text = str(threads)
        # --swa-full keeps all of a windowed layer's keys: without it nothing of a prompt is reused on Gemma 2 and 3.
        command = [
            str(binary), "--model", str(model), "--device", "none", "--threads", threads_text,
            "--threads-batch", threads_text, "--parallel", "1", "--ctx-size", str(context), "--swa-full",
            "--host", "127.0.0.1", "--port", str(self._port), *more,
        ]
        paths = [str(binary.parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)}
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            status = self._process.poll()
            if status == -signal.SIGILL:
                raise Trouble("this llama-server needs instructions that this processor lacks: build one for it, "
                              "and give it with --llama-server PATH")
            if status is not None or time.monotonic() > deadline:
                self._log.seek(0)
                tail = self._log.read().decode(errors="replace").splitlines()[-15:]
                raise Trouble("llama-server did not start:\n" + "\n".join(tail))
            try:
                connection = self._connect()
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)

    def _connect(self) -> http.client.HTTPConnection:
        """A connection for one request: the server closes those that live longer, when it likes."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        connection.connect()
        return connection

    def facts(self) -> dict[str, Any]:
        """What the server says of itself: its build, and the instructions that it uses."""
        self._log.seek(0)
        log = self._log.read().decode(errors="replace")
        info = [line.split("system_info:", 1)[1].strip() for line in log.splitlines() if "system_info:" in line]
        return {"build": self._get("/props").get("build_info"), "system": info[0] if info else None}

    def _get(self, path: str) -> dict[str, Any]:
        connection = self._connect()
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())

    def _post(self, connection: http.client.HTTPConnection, path: str, body: bytes) -> http.client.HTTPResponse:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise Trouble(f"llama-server answered {response.status} to {path}: {response.read().decode()}")
        return response

    def tokens(self, text: str) -> list[int]:
        """The ids of a text in which nothing has a special meaning."""
        if not text:
            return []
        body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
        return json.loads(self._post(self._connect(), "/tokenize", body).read())["tokens"]

    def count(self, text: str) -> int:
        """How many tokens a text has by itself."""
        if text not in self._counts:
            self._counts[text] = len(self.tokens(text))
        return self._counts[text]

    def complete(self, prompt: list[int], tokens: int, keep: bool = True) -> Answer:
        """Generates exactly so many tokens behind a prompt, always the likeliest, and waits for them."""
        body = json.dumps({
            "prompt": prompt, "n_predict": tokens, "stream": True, "id_slot": 0, "cache_prompt": keep,
            # The cheapest sampler there is, and no early end.
            "temperature": 0.0, "samplers": ["top_k"], "top_k": 1, "ignore_eos": True, "return_tokens": True,
        }).encode()
        connection = self._connect()
        begun = time.perf_counter()
        response = self._post(connection, "/completion", body)
        first: float | None = None
        last, timings = begun, dict[str, Any]()
        for line in response:
            if not line.startswith(b"data: "):
                continue
            last = time.perf_counter()
            first = first or last
            event = json.loads(line[6:])
            timings = event.get("timings", timings)
        if first is None or not timings:
            raise Trouble("llama-server's answer tells no timings: it is too old")
        return Answer(
            found=timings["cache_n"], computed=timings["prompt_n"], generated=timings["predicted_n"],
            first_ms=(first - begun) * 1e3, total_ms=(last - begun) * 1e3,
            prefill_ms=timings["prompt_ms"], decode_ms=timings["predicted_ms"],
        )
