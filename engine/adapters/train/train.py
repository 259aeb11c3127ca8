#!/usr/bin/env python3
"""Train a fill-in-the-middle adapter for Gemma on your own source files.

    train.py SOURCES... --base MODEL --out FOLDER

SOURCES are folders, best git repositories. MODEL is the GGUF file that gemma-ls runs, or a HuggingFace folder
(Gemma 1, CodeGemma, Gemma 2, Gemma 3 270M and 1B). FOLDER then holds the adapter:

    gemma-ls complete --adapter FOLDER ...

Some files are held out, and the adapter is measured on them before and after. Ctrl-C ends the training early and
keeps what was learned. README.md beside this file says more.
"""
import argparse
import collections
import os
import random
import sys
import time

from examples import (
    IGNORED, JOINED_SHARE, MIDDLE_PART, PATH_SHARE, PREFIX_WEIGHT, SHORTEST, Cutter, batch_of, batches, in_memory, lay_out, learning_rate, progress, vocabulary)
from sources import collect, split

MINUTES = 45
# A step takes its examples in parts, since what a part needs for its gradients lies in memory together: 7 GB in all for
# the 270M, where whole steps took 19.
TOKENS_AT_ONCE = 3072


def arguments(given=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("sources", nargs="+", metavar="SOURCES", help="folders with source files; what git ignores is left out")
    ap.add_argument("--base", required=True, metavar="MODEL", help="GGUF file or HuggingFace folder to train for")
    ap.add_argument("--out", required=True, metavar="FOLDER", help="where the adapter goes (made if it is not there)")
    ap.add_argument("--start", metavar="ADAPTER", help="begin with this adapter's numbers (same base, all seven projections), "
                    "not with nothing: learns your code faster, for it knows the layout already. Takes its rank and alpha")
    ap.add_argument("--minutes", type=float, help=f"stop training after this time (default {MINUTES} where --steps is not given); "
                    "reading the model and measuring come on top")
    ap.add_argument("--steps", type=int, help="stop after so many steps")
    ap.add_argument("--rank", type=int, default=16, help="rank of the adapter (default 16): more learns more and costs more at run time")
    ap.add_argument("--alpha", type=float, help="the factors' product counts alpha / rank (default twice the rank)")
    ap.add_argument("--batch", type=int, default=12, help="examples a step (default 12)")
    ap.add_argument("--length", type=int, default=768, help="most tokens of an example (default 768)")
    ap.add_argument("--lr", type=float, default=4e-4, help="highest learning rate (default 4e-4; the embedding rows get five times it)")
    ap.add_argument("--vocabulary", type=int, default=32768, metavar="N",
                    help="the loss weighs an answer against N tokens, those of your code first (default 32768; 0 for all: slower)")
    ap.add_argument("--held-out", type=float, default=0.1, metavar="SHARE", help="share of the files to measure with (default 0.1; 0 for none)")
    ap.add_argument("--cases", type=int, default=160, help="held-out cases of each kind (default 160)")
    ap.add_argument("--extensions", metavar="EXT,...", help="files to take, as rs,py (default: those of the usual programming languages)")
    ap.add_argument("--seed", type=int, default=1, help="everything random follows from it (default 1)")
    ap.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    ap.add_argument("--dtype", choices=("auto", "bf16", "f32"), default="auto", help="what to compute in (default: bf16 where the machine has it)")
    ap.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    args = ap.parse_args(given)
    wrong = [(args.rank < 1, "--rank must be 1 or more"), (args.batch < 1, "--batch must be 1 or more"),
             (args.length < 64, "--length must be 64 or more: less leaves no room around the middle"),
             (args.lr <= 0, "--lr must be above 0"), (not 0 <= args.held_out < 1, "--held-out is a share: 0 or more, below 1"),
             (args.cases < 1, "--cases must be 1 or more"), (args.vocabulary < 0, "--vocabulary must be 0 or more"),
             (args.minutes is not None and args.minutes <= 0, "--minutes must be above 0"),
             (args.steps is not None and args.steps < 1, "--steps must be 1 or more")]
    for bad, message in wrong:
        if bad:
            ap.error(message)
    if args.minutes is None and args.steps is None:
        args.minutes = MINUTES
    return args


def fail(message):
    sys.exit(f"error: {message}")


def say(message):
    print(message, flush=True)


def read_sources(args):
    """(training files, held-out files)."""
    extensions = [e.strip(" .").lower() for e in args.extensions.split(",")] if args.extensions else None
    found, left, texts = [], collections.Counter(), set()
    for root in args.sources:
        if not os.path.isdir(root):
            fail(f"{root} is not a folder.")
        some, out = collect(root, extensions)
        found += [s for s in some if s.text not in texts]
        texts.update(s.text for s in some)
        left.update(out)
    if len(found) < 2:
        fail(f"{len(found)} source file(s) found in {', '.join(args.sources)}; at least 2 are needed, and hundreds are better. "
             "Give --extensions if your language is not among the usual ones.")
    languages = collections.Counter()
    for s in found:
        languages[s.language] += len(s.text)
    said = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in languages.most_common(8))
    say(f"{len(found)} files, {sum(languages.values()) / 1e6:.2f} million characters ({said})")
    if left:
        say("left out: " + ", ".join(f"{n} {reason}" for reason, n in left.most_common()))
    return split(found, args.held_out, args.seed)


def pick_device(args):
    """(device, dtype). bf16 on a CPU only with instructions for it: without, it is slower than f32."""
    import torch

    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.dtype != "auto":
        return device, {"bf16": torch.bfloat16, "f32": torch.float32}[args.dtype]
    if device == "cuda":
        fit = torch.cuda.is_bf16_supported()
    elif device == "cpu":
        try:
            with open("/proc/cpuinfo", encoding="utf-8") as f:
                words = set(f.read().split())
        except OSError:
            words = set()
        fit = bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
    else:
        fit = False
    return device, torch.bfloat16 if fit else torch.float32


class Loss:
    """Weighted cross-entropy of the positions that count, over the ids of `chosen` (None for all)."""

    def __init__(self, model, chosen):
        import torch

        weight = model.lm_head.weight.detach()
        self.place = None
        if chosen is not None:
            chosen = torch.tensor(chosen, device=weight.device)
            self.place = torch.full((weight.shape[0],), IGNORED, device=weight.device)
            self.place[chosen] = torch.arange(len(chosen), device=weight.device)
            weight = weight[chosen].contiguous()
        self.model, self.weight = model, weight

    def __call__(self, ids, labels, weights, total):
        """The sum over these rows, divided by `total`: the weight of all rows of the step."""
        import torch.nn.functional as F

        from evaluate import logits

        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        counts = labels != IGNORED
        wanted, weights = labels[counts], weights[counts]
        if self.place is not None:
            wanted = self.place[wanted]
        each = F.cross_entropy(logits(self.model, hidden[counts], self.weight), wanted, ignore_index=IGNORED, reduction="none")
        return (each * weights).sum() / total


def train(args, base, adapter, sources):
    """Trains in place; returns (steps, tokens, seconds)."""
    import torch

    rng = random.Random(args.seed)
    cutter = Cutter(sources, rng)

    def make():
        for _ in range(10_000):
            # Of all lengths: a file has a beginning, and what an editor shows of it is now short, now long.
            length = rng.randint(min(SHORTEST, args.length), args.length)
            example = lay_out(cutter.cut(), base.encode, length, path=rng.random() < PATH_SHARE,
                              joined=rng.random() < JOINED_SHARE, prefix_weight=PREFIX_WEIGHT)
            if example is not None:
                return example
        fail(f"No middle in these files fits into {int(MIDDLE_PART * args.length)} tokens. Give a greater --length.")

    counts = collections.Counter()
    for source in sources:
        counts.update(base.encode(source.text))
    loss_of = Loss(base.model, vocabulary(counts, args.vocabulary, base.model.config.vocab_size))
    factors, rows = adapter.parameters()
    groups = [dict(params=factors, peak=args.lr), dict(params=rows, peak=5 * args.lr)]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.0)
    seconds = 60 * args.minutes if args.minutes else None
    began = shown = time.monotonic()
    step, tokens, mean = 0, 0, None
    every = 5 if sys.stdout.isatty() else 30
    try:
        for examples in batches(make, args.batch, rng):
            done = progress(time.monotonic() - began, step, seconds, args.steps)
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * learning_rate(done)
            total = sum(sum(e.weights) for e in examples)
            optimizer.zero_grad(set_to_none=True)
            value = 0.0
            for some in in_memory(examples, TOKENS_AT_ONCE):
                loss = loss_of(*(torch.tensor(r, device=base.model.device) for r in batch_of(some)), total)
                loss.backward()
                value += loss.item()
            torch.nn.utils.clip_grad_norm_(factors + rows, 1.0)
            optimizer.step()
            if value != value:
                fail(f"The training lost its way at step {step} (the loss is not a number). Try a lower --lr.")
            mean = value if mean is None else 0.95 * mean + 0.05 * value
            step, tokens = step + 1, tokens + sum(len(e.ids) for e in examples)
            now = time.monotonic()
            if now - shown >= every or step == 1:
                shown = now
                part = min(progress(now - began, step, seconds, args.steps), 1.0)
                left = (now - began) * (1 - part) / part if part else 0
                say(f"step {step}  {100 * part:3.0f}%  loss {mean:.3f}  {(now - began) / step:.2f} s a step  {left / 60:.0f} min left")
    except KeyboardInterrupt:
        say("stopped; what was learned so far is kept")
    return step, tokens, time.monotonic() - began


def main(given=None):
    args = arguments(given)
    training, held = read_sources(args)
    say(f"{len(training)} files to learn from, {len(held)} held out")
    try:
        import torch
        from base import BaseError, load
        from evaluate import cases, judge, table
        from lora import Adapter, AdapterError, shape_of
    except ImportError as e:
        fail(f"{e}. Install what is needed with: pip install -r requirements.txt")
    torch.manual_seed(args.seed)
    device, dtype = pick_device(args)
    say(f"reading {args.base} ({device}, {str(dtype).removeprefix('torch.')}); this takes a minute")
    try:
        rank, alpha = shape_of(args.start) if args.start else (args.rank, args.alpha or 2 * args.rank)
        base = load(args.base, dtype)
        base.model.to(device)
        adapter = Adapter(base.model, rank, int(alpha) if alpha == int(alpha) else alpha)
        if args.start:
            adapter.load(args.start)
    except (BaseError, AdapterError) as e:
        fail(e)
    found, columns = {}, []
    if held:
        found = cases(held, base.encode, args.length, args.cases, args.seed)
        say("measuring the base")
        adapter.switch(False)
        columns.append(("base, prefix alone", judge(base, found, args.length, fim=False), False))
        if base.knows_fim:
            columns.append(("base, its own layout", judge(base, found, args.length, fim=True), True))
        adapter.switch(True)
        if args.start:
            columns.append(("the adapter to start from", judge(base, found, args.length, fim=True), True))
    say(f"training {adapter.numbers() / 1e6:.2f} million numbers (rank {rank}, alpha {alpha:g})")
    steps, tokens, seconds = train(args, base, adapter, training)
    adapter.save(args.out, base.name)
    say(f"{steps} steps, {tokens / 1e6:.2f} million tokens in {seconds / 60:.1f} minutes; written to {args.out}")
    if held:
        columns.append(("adapter", judge(base, found, args.length, fim=True), True))
        say("\nexact / first token / nats a character (/ ends where it should), teacher-forced:\n\n" + table(columns))


if __name__ == "__main__":
    main()
