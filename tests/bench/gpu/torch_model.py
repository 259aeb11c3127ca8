#!/usr/bin/env python3
"""Times a Gemma of a configuration's shapes in PyTorch on a GPU: random weights in bf16, a step as a CUDA graph.

    python torch_model.py CONFIG.JSON [--decode-at 512,7900] [--prefill 2048]

Prints milliseconds as JSON. It is as fast as plain PyTorch gets, and leaves out what that has no kernel for (soft
caps), so the comparison is kind to it: q, k and v are one product and so are gate and up, attention is
scaled_dot_product_attention over exactly the keys that are there, and a step at one position is recorded once and
replayed. Gemma 1 and 2 only.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

ROUNDS = 30


class Layer:
    """Weights and cache of a layer."""

    def __init__(self, config: dict, number: int, length: int, device: str) -> None:
        hidden, ffn, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
        self.heads, self.kv_heads, self.dim = config["num_attention_heads"], config["num_key_value_heads"], dim
        # Gemma 2 slides in every second layer, and has norms behind both halves too.
        slides = config["model_type"] == "gemma2" and number % 2 == 0
        self.window = config["sliding_window"] if slides else None
        self.post = config["model_type"] == "gemma2"
        self.qkv = matrix((self.heads + 2 * self.kv_heads) * dim, hidden, device)
        self.out = matrix(hidden, self.heads * dim, device)
        self.gate_up = matrix(2 * ffn, hidden, device)
        self.down = matrix(hidden, ffn, device)
        self.norms = [torch.ones(hidden, device=device, dtype=torch.bfloat16) for _ in range(4)]
        self.keys = torch.zeros(1, self.kv_heads, length, dim, device=device, dtype=torch.bfloat16)
        self.values = torch.zeros_like(self.keys)

    def attention(self, x: torch.Tensor, start: int, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0]
        turned = F.linear(x, self.qkv).view(rows, -1, self.dim).transpose(0, 1)[None]
        q, k, v = turned.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        end = start + rows
        self.keys[:, :, start:end] = k
        self.values[:, :, start:end] = v
        first = max(0, end - self.window) if self.window and rows == 1 else 0
        keys, values = self.keys[:, :, first:end], self.values[:, :, first:end]
        grouped = self.heads != self.kv_heads
        seen = F.scaled_dot_product_attention(q, keys, values, is_causal=rows > 1, enable_gqa=grouped)
        return F.linear(seen[0].transpose(0, 1).reshape(rows, -1), self.out)

    def forward(self, x: torch.Tensor, start: int, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        y = self.attention(norm(x, self.norms[0]), start, cos, sin)
        x = x + (norm(y, self.norms[1]) if self.post else y)
        gate, up = F.linear(norm(x, self.norms[2]), self.gate_up).chunk(2, dim=-1)
        y = F.linear(F.gelu(gate, approximate="tanh") * up, self.down)
        return x + (norm(y, self.norms[3]) if self.post else y)


def matrix(rows: int, cols: int, device: str) -> torch.Tensor:
    return torch.randn(rows, cols, device=device, dtype=torch.bfloat16) / cols**0.5


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


class Model:
    """A decoder with room for so many positions."""

    def __init__(self, config: dict, length: int, device: str) -> None:
        self.device = device
        hidden = config["hidden_size"]
        self.table = matrix(config["vocab_size"], hidden, device)
        self.layers = [Layer(config, number, length, device) for number in range(config["num_hidden_layers"])]
        self.norm = torch.ones(hidden, device=device, dtype=torch.bfloat16)
        powers = torch.arange(0, config["head_dim"], 2, device=device) / config["head_dim"]
        angles = torch.outer(torch.arange(length, device=device), 1 / 10_000.0**powers).repeat(1, 2)
        self.cos, self.sin = angles.cos().bfloat16(), angles.sin().bfloat16()

    def forward(self, ids: torch.Tensor, start: int) -> torch.Tensor:
        """The likeliest token behind the last row."""
        x = F.embedding(ids, self.table)
        cos, sin = (turn[start : start + ids.shape[0]] for turn in (self.cos, self.sin))
        for layer in self.layers:
            x = layer.forward(x, start, cos, sin)
        return F.linear(norm(x[-1:], self.norm), self.table).argmax(-1)


def timed(call) -> float:
    """Milliseconds of a call on the device, the median of many."""
    times = []
    for _ in range(ROUNDS):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        call()
        ended.record()
        ended.synchronize()
        times.append(begun.elapsed_time(ended))
    return statistics.median(times)


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--decode-at", default="512")
    parser.add_argument("--prefill", type=int, default=2048)
    arguments = parser.parse_args()
    config = json.loads(arguments.config.read_text())
    if config.get("model_type") not in ("gemma", "gemma2"):
        raise SystemExit(f"{config.get('model_type')} is not made here")
    positions = [int(at) for at in arguments.decode_at.split(",")]
    model = Model(config, max(*positions, arguments.prefill) + 1, "cuda")
    found = {"torch": torch.__version__, "device": torch.cuda.get_device_name()}
    ids = torch.arange(arguments.prefill, device="cuda")
    for _ in range(3):
        model.forward(ids, 0)
    found[f"prefill {arguments.prefill}"] = timed(lambda: model.forward(ids, 0))
    token = ids[:1].clone()
    for at in positions:
        for _ in range(3):
            model.forward(token, at)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            token.copy_(model.forward(token, at))
        found[f"decode at {at}"] = timed(graph.replay)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
