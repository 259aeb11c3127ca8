"""Cutting sources into examples, laying them out as tokens, and the schedule. Needs nothing but Python.

An example in the SPM layout that gemma-ls asks with:

    <bos> [path \\n] <prefix> <suffix> SUFFIX <middle> PREFIX middle <eos>

The prefix and the middle stand next to each other. The loss counts on the middle and `<eos>`, and a little on the prefix.
"""
import math
from dataclasses import dataclass

BOS, EOS = 2, 1
FIM = {"prefix": 67, "middle": 68, "suffix": 69, "separator": 70}
ROWS = sorted(FIM.values())
IGNORED = -100

# What is asked of an editor: mostly the rest of the line that is being typed.
SHARES = {"line": 0.60, "inside": 0.18, "block": 0.17, "any": 0.05}
KINDS = {"line": "rest of a line", "inside": "inside a line", "block": "one to five lines"}
PATH_SHARE = 0.4
LONGEST_PATH = 24
# Of the example's length: prefix, suffix, middle.
PREFIX_PART, SUFFIX_PART, MIDDLE_PART = 0.51, 0.27, 0.19
SHORTEST = 128
# How much a token of the prefix counts, where one of the middle counts 1: code is learnt there too, ten times as much of it.
PREFIX_WEIGHT = 0.1
# Tokenised through the cursor as often as not: an editor's server gives back the token that the cursor cuts and asks for one
# that begins with it (token healing), but also asks behind a token that ends there.
JOINED_SHARE = 0.5


@dataclass(frozen=True)
class Cut:
    """A text cut in three, and the file it is from."""

    path: str
    prefix: str
    middle: str
    suffix: str


def lines_of(text):
    """(start, end) of each line that is not blank, without its line break."""
    spans, at = [], 0
    for line in text.split("\n"):
        if line.strip():
            spans.append((at, at + len(line)))
        at += len(line) + 1
    return spans


def cut(source, spans, kind, rng):
    """A random cut of one kind (see SHARES), or None where the spot that came up does not have it."""
    text = source.text
    start, end = spans[rng.randrange(len(spans))]
    first = start + len(text[start:end]) - len(text[start:end].lstrip())
    end = start + len(text[start:end].rstrip())
    if kind == "line":
        a, b = rng.randrange(first, end), end
    elif kind == "inside":
        if end - first < 3:
            return None
        a = rng.randrange(first, end - 1)
        b = rng.randrange(a + 1, min(end, a + 60))
    elif kind == "block":
        # Half on a fresh line, behind its indentation; half behind a line, where the middle begins with a break.
        a = first if rng.random() < 0.5 else end
        b = end if a == first else a
        more = rng.randrange(0 if a == first else 1, 5)
        for _ in range(more):
            following = text.find("\n", b + 1)
            if b >= len(text):
                break
            b = len(text) if following < 0 else following
        b = a + len(text[a:b].rstrip())
    else:
        a = rng.randrange(len(text))
        b = min(len(text), a + rng.randrange(1, 200))
    if not text[a:b].strip():
        return None
    return Cut(source.path, text[:a], text[a:b], text[b:])


class Cutter:
    """Random cuts of a set of sources; a file comes up as often as it has lines."""

    def __init__(self, sources, rng):
        self.rng = rng
        self.sources = [(s, spans) for s in sources if (spans := lines_of(s.text))]
        if not self.sources:
            raise ValueError("there is no line of text in these files")
        self.weights = [len(spans) for _, spans in self.sources]

    def cut(self, kind=None):
        while True:
            source, spans = self.rng.choices(self.sources, self.weights)[0]
            chosen = kind or self.rng.choices(list(SHARES), list(SHARES.values()))[0]
            found = cut(source, spans, chosen, self.rng)
            if found is not None:
                return found


@dataclass(frozen=True)
class Example:
    """Token ids and, for each, what is to be predicted from it (IGNORED where nothing counts) and how much it counts.

    `middle` is how many tokens the middle has, `<eos>` not counted; `text` is the middle that they spell."""

    ids: list
    labels: list
    weights: list
    middle: int
    text: str


def encode_apart(cut, encode, most):
    """(ids of the prefix, ids of the middle), the text cut at the cursor before it is tokenised."""
    # The tokenizer is not run over whole files: no token is near 16 characters long on average.
    return encode(cut.prefix[-16 * most:]), encode(cut.middle)


def encode_joined(cut, encode, most):
    """As `encode_apart`, tokenised as one text: the token that the cursor cuts is the middle's first."""
    before = cut.prefix[-16 * most:]
    whole, prefix = encode(before + cut.middle), encode(before)
    same = 0
    while same < min(len(whole), len(prefix)) and whole[same] == prefix[same]:
        same += 1
    return whole[:same], whole[same:]


def lay_out(cut, encode, length, path=False, fim=True, joined=False, prefix_weight=0.0):
    """An example of at most `length` tokens, or None where the middle is too long for it.

    `encode` turns text into ids. Without `fim` it is the plain-prefix prompt: `<bos> [path \\n] PREFIX middle`.
    """
    most = lambda part: max(1, int(part * length))
    if not cut.middle:
        return None
    prefix, middle = (encode_joined if joined else encode_apart)(cut, encode, most(PREFIX_PART))
    if not middle or len(middle) > most(MIDDLE_PART):
        return None
    suffix = encode(cut.suffix[:16 * most(SUFFIX_PART)])[:most(SUFFIX_PART)]
    head = [BOS]
    if path:
        name = encode(cut.path + "\n")
        head += name if len(name) <= LONGEST_PATH else []
    if fim:
        head += [FIM["prefix"], FIM["suffix"], *suffix, FIM["middle"]]
    room = min(most(PREFIX_PART), length - len(head) - len(middle) - 1)
    if room < 0:
        return None
    prefix = prefix[max(0, len(prefix) - room):]
    ids = head + prefix + middle
    # What stands at i is predicted from i - 1.
    weights = [0.0] * (len(head) - 1) + [prefix_weight] * len(prefix) + [1.0] * (len(middle) + 1)
    labels = [label if weight else IGNORED for label, weight in zip(ids[1:] + [EOS], weights)]
    return Example(ids, labels, weights, len(middle), cut.middle)


def batch_of(examples, pad=0):
    """(ids, labels, weights) as equally long rows. Padding stands behind, where a causal model does not see it."""
    longest = max(len(e.ids) for e in examples)
    fill = lambda rows, with_: [row + [with_] * (longest - len(row)) for row in rows]
    return (fill([e.ids for e in examples], pad), fill([e.labels for e in examples], IGNORED), fill([e.weights for e in examples], 0.0))


def batches(make, size, rng, ahead=8):
    """Endless batches of `make()`; `ahead` batches at a time are sorted by length, so that little is padded."""
    while True:
        pool = sorted((make() for _ in range(size * ahead)), key=lambda e: len(e.ids))
        groups = [pool[i:i + size] for i in range(0, len(pool), size)]
        rng.shuffle(groups)
        yield from groups


def in_memory(examples, most):
    """The examples in parts of at most `most` tokens when padded, of one example at least."""
    part, longest = [], 0
    for e in examples:
        if part and max(longest, len(e.ids)) * (len(part) + 1) > most:
            yield part
            part, longest = [], 0
        part.append(e)
        longest = max(longest, len(e.ids))
    if part:
        yield part


def vocabulary(counts, most, whole, always=(EOS,)):
    """The ids over which the loss is computed, sorted; `whole` is the size of the tokenizer, `most` 0 means all.

    The commonest of `counts` (id -> times seen) come first. What room is left goes to the lowest ids, which are
    the commonest pieces of the tokenizer's own training. The ids of FIM stay out: they are never an answer.
    """
    if not 0 < most < whole:
        return None
    chosen = {i for i in always}
    for i, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if len(chosen) == most:
            break
        if i not in ROWS:
            chosen.add(i)
    for i in range(whole):
        if len(chosen) >= most:
            break
        if i not in ROWS:
            chosen.add(i)
    return sorted(chosen)


def learning_rate(progress, warm=0.05, floor=0.05):
    """The factor of the learning rate at `progress` (0 to 1): a linear warm-up, then a cosine down to `floor`."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < warm:
        return max(progress, 0.1 * warm) / warm
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))


def progress(elapsed, step, seconds=None, steps=None):
    """How far the training is: whichever of time and steps is further. 1 or more means the end."""
    parts = [elapsed / seconds] if seconds else []
    parts += [step / steps] if steps else []
    return max(parts)
