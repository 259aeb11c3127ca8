#!/usr/bin/env python3
"""Times the reference implementation (PyTorch, transformers) on a HuggingFace folder, in bf16 on the CPU.

    pip install torch transformers safetensors
    python tests/bench/reference.py FOLDER [--prefill 2048] [--decode-at 2100] [--threads N]

Prints the same JSON as `time-model`: prefill tokens per second (median of the rounds, the first left
out: it pays for what is set up once), milliseconds a decoded token.
"""

import argparse
import json
import statistics
import time

import torch
import transformers


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--prefill", type=int, default=2048)
    parser.add_argument("--decode-at", type=int, nargs="*", default=[])
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    return parser.parse_args()


def ids(config, length, kind):
    spread = config.vocab_size - 300
    return torch.tensor([[2] + [256 + (i * 7919 + 104729 * (kind + 1)) % spread for i in range(1, length)]])


@torch.no_grad()
def main():
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.bfloat16).eval()
    prefill = []
    for round_ in range(args.rounds + 1):
        prompt = ids(model.config, args.prefill, round_)
        begun = time.perf_counter()
        model(prompt, use_cache=True, logits_to_keep=1)
        prefill.append(args.prefill / (time.perf_counter() - begun))
    decode = []
    for position in args.decode_at:
        out = model(ids(model.config, position, args.rounds), use_cache=True, logits_to_keep=1)
        times = []
        for step in range(args.tokens):
            token = out.logits[:, -1:].argmax(-1)
            begun = time.perf_counter()
            where = torch.tensor([position + step])
            out = model(token, past_key_values=getattr(out, "past_key_values", None), use_cache=True,
                        position_ids=where[None], logits_to_keep=1)
            times.append((time.perf_counter() - begun) * 1000)
        decode.append({"position": position, "ms_per_token": statistics.median(times)})
    print(json.dumps({
        "model": args.folder,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "prefill": {"tokens": args.prefill, "tokens_per_s": statistics.median(prefill[1:]), "all": prefill},
        "decode": decode,
    }, indent=2))


if __name__ == "__main__":
    main()
