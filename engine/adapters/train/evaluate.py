"""How well held-out middles are predicted: first token, all of it, nats a character."""
import random

import torch

from examples import EOS, IGNORED, KINDS, PATH_SHARE, ROWS, Cutter, batch_of, lay_out


def cases(sources, encode, length, count, seed):
    """`count` cuts of each kind with the coin whether the path is said; None where the files do not give them."""
    rng = random.Random(f"{seed}/held-out")
    cutter, found = Cutter(sources, rng), {}
    for kind in KINDS:
        found[kind] = []
        for _ in range(50 * count):
            if len(found[kind]) == count:
                break
            cut, path = cutter.cut(kind), rng.random() < PATH_SHARE
            if lay_out(cut, encode, length, path) and lay_out(cut, encode, length, path, fim=False):
                found[kind].append((cut, path))
    return found


@torch.no_grad()
def judge(base, found, length, fim, batch=16):
    """For each kind: `exact` and `first` (shares), `nats` a character of the middle, `ends` (share), `cases`.

    Teacher-forced over the whole vocabulary. `exact`: each token of the middle is the likeliest, given those before it.
    `ends`: what is likeliest behind the middle ends it (`<eos>` or one of FIM's ids).
    """
    return {kind: judge_kind(base, [lay_out(cut, base.encode, length, path, fim) for cut, path in some], batch)
            for kind, some in found.items() if some}


def judge_kind(base, examples, batch):
    exact = first = ends = characters = 0
    nats = 0.0
    examples = sorted(examples, key=lambda e: len(e.ids))
    ending = torch.tensor([EOS, *ROWS])
    for start in range(0, len(examples), batch):
        some = examples[start:start + batch]
        ids, labels, _ = (torch.tensor(rows, device=base.model.device) for rows in batch_of(some))
        hidden = base.model.model(input_ids=ids, use_cache=False).last_hidden_state
        counts = labels != IGNORED
        chances, best = chosen(base.model, hidden[counts], labels[counts])
        lengths = counts.sum(1).tolist()
        for example, chance, picked, wanted in zip(some, *(t.split(lengths) for t in (chances, best, labels[counts].cpu()))):
            right = picked[:-1] == wanted[:-1]
            exact += bool(right.all())
            first += bool(right[0])
            ends += bool((picked[-1] == ending).any())
            nats -= chance[:-1].sum().item()
            characters += len(example.text)
    n = len(examples)
    return dict(cases=n, exact=exact / n, first=first / n, nats=nats / characters, ends=ends / n)


def chosen(model, hidden, wanted, rows=64):
    """(log-probability of each wanted token, likeliest token), some rows at a time: whole they would fill gigabytes."""
    chances, best = [], []
    for start in range(0, len(wanted), rows):
        out = torch.log_softmax(logits(model, hidden[start:start + rows], model.lm_head.weight), -1)
        chances.append(out.gather(1, wanted[start:start + rows, None]).flatten().cpu())
        best.append(out.argmax(-1).cpu())
    return torch.cat(chances), torch.cat(best)


def logits(model, hidden, weight):
    """The output product in float32 with Gemma 2's softcap; `weight` may be some of the rows."""
    out = (hidden @ weight.T).float()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return torch.tanh(out / cap) * cap if cap else out


def table(columns):
    """A Markdown table of `judge`'s results, one per (heading, result, whether an end was asked for)."""
    lines = ["| held-out cases | " + " | ".join(heading for heading, _, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for kind, said in KINDS.items():
        if not all(kind in result for _, result, _ in columns):
            continue
        cells = [f"{r['exact']:.2f} / {r['first']:.2f} / {r['nats']:.2f}" + (f" / {r['ends']:.2f}" if asked else "")
                 for r, asked in ((result[kind], asked) for _, result, asked in columns)]
        lines.append(f"| {said} ({columns[0][1][kind]['cases']}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)
