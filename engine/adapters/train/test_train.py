"""Tests of the parts that need no torch: `pytest engine/adapters/train`. What needs it is skipped where it is missing."""
import os
import random
import subprocess

import pytest

import examples
import sources
import train
from examples import EOS, FIM, IGNORED, Cut, Example

HERE = os.path.dirname(os.path.abspath(__file__))
CODE = "fn main() {\n    let total = add(1, 2);\n    println!(\"{total}\");\n\n    done(total)\n}\n"


def encode(text):
    """One token a character, far from the ids that mean something."""
    return [1000 + ord(c) for c in text]


def source(text=CODE, path="src/main.rs"):
    return sources.Source(path, "rust", text)


# ------------------------------------------------------------------- cutting

@pytest.mark.parametrize("kind", examples.SHARES)
def test_a_cut_puts_the_text_back_together(kind):
    rng, spans, seen = random.Random(3), examples.lines_of(CODE), 0
    for _ in range(300):
        cut = examples.cut(source(), spans, kind, rng)
        if cut:
            seen += 1
            assert cut.prefix + cut.middle + cut.suffix == CODE
            assert cut.middle.strip()
    assert seen > 100


def test_a_line_is_cut_to_its_end():
    rng, spans = random.Random(4), examples.lines_of(CODE)
    for _ in range(200):
        cut = examples.cut(source(), spans, "line", rng)
        assert "\n" not in cut.middle and cut.suffix.startswith("\n")


def test_inside_a_line_something_stays_behind_the_middle():
    rng, spans = random.Random(5), examples.lines_of(CODE)
    for cut in filter(None, (examples.cut(source(), spans, "inside", rng) for _ in range(200))):
        assert "\n" not in cut.middle and not cut.suffix.startswith("\n")


def test_blocks_begin_both_ways_and_have_one_to_five_lines():
    rng, spans, begins, most = random.Random(6), examples.lines_of(CODE), set(), 0
    for cut in filter(None, (examples.cut(source(), spans, "block", rng) for _ in range(400))):
        begins.add(cut.middle.startswith("\n"))
        lines = cut.middle.strip("\n").count("\n") + 1
        most = max(most, lines)
        assert 1 <= lines <= 5
        assert cut.middle == cut.middle.rstrip()
    assert begins == {True, False} and most > 2


def test_blank_files_have_no_lines():
    assert examples.lines_of("\n\n   \n") == []
    with pytest.raises(ValueError):
        examples.Cutter([source("\n\n")], random.Random(0))


# -------------------------------------------------------------------- layout

def test_the_layout_is_spm_with_the_prefix_next_to_the_middle():
    e = examples.lay_out(Cut("a.rs", "ab", "cd", "ef"), encode, 64)
    assert e.ids == [2, 67, 69, *encode("ef"), 68, *encode("ab"), *encode("cd")]
    assert e.middle == 2 and e.text == "cd"


def test_the_path_stands_in_front_of_the_layout():
    e = examples.lay_out(Cut("a.rs", "ab", "cd", "ef"), encode, 64, path=True)
    assert e.ids[:8] == [2, *encode("a.rs\n"), 67, 69]


def test_a_path_that_is_too_long_is_left_out():
    e = examples.lay_out(Cut("a" * 40, "ab", "cd", "ef"), encode, 64, path=True)
    assert e.ids[1] == FIM["prefix"]


def test_the_loss_counts_on_the_middle_and_the_end_alone():
    e = examples.lay_out(Cut("a.rs", "ab", "cd", "ef"), encode, 64)
    assert len(e.labels) == len(e.ids)
    assert e.labels == [IGNORED] * 7 + [*encode("cd"), EOS]
    # each label is what follows its token
    assert [(e.ids[i], e.labels[i]) for i in range(7, 10)] == [
        (encode("b")[0], encode("c")[0]), (encode("c")[0], encode("d")[0]), (encode("d")[0], EOS)]


def test_the_prefix_may_count_a_little():
    e = examples.lay_out(Cut("a.rs", "ab", "cd", "ef"), encode, 64, prefix_weight=0.25)
    assert e.weights == [0, 0, 0, 0, 0, 0.25, 0.25, 1, 1, 1]
    assert e.labels == [IGNORED] * 5 + [*encode("abcd"), EOS]


def pairs(text):
    """A tokenizer of pairs of characters from the start on: what is cut elsewhere begins another token."""
    return [1000 + sum(map(ord, text[i:i + 2])) for i in range(0, len(text), 2)]


def test_joined_examples_have_the_token_that_the_cursor_cuts_in_the_middle():
    cut = Cut("a.rs", "abc", "def", "")
    apart, joined = (examples.lay_out(cut, pairs, 64, fim=False, joined=joined) for joined in (False, True))
    assert apart.ids == [2, *pairs("ab"), *pairs("c"), *pairs("de"), *pairs("f")] and apart.middle == 2
    assert joined.ids == [2, *pairs("ab"), *pairs("cd"), *pairs("ef")] and joined.middle == 2
    assert joined.weights == [0, 1, 1, 1]


def test_a_joined_example_that_nothing_cuts_is_the_same():
    cut = Cut("a.rs", "ab", "cd", "ef")
    assert examples.lay_out(cut, encode, 64, joined=True) == examples.lay_out(cut, encode, 64)


def test_the_plain_prompt_has_no_suffix():
    e = examples.lay_out(Cut("a.rs", "ab", "cd", "ef"), encode, 64, fim=False)
    assert e.ids == [2, *encode("ab"), *encode("cd")]


@pytest.mark.parametrize("length", [64, 100, 256])
@pytest.mark.parametrize("path", [False, True])
def test_no_example_is_longer_than_asked_and_what_is_near_stays(length, path):
    cut = Cut("src/a/b.rs", "x" * 900 + "y", "m" * 10, "z" + "w" * 900)
    e = examples.lay_out(cut, encode, length, path=path)
    assert len(e.ids) <= length and len(e.labels) == len(e.ids)
    assert e.ids[-11] == encode("y")[0]
    assert e.ids[e.ids.index(FIM["suffix"]) + 1] == encode("z")[0]


def test_a_middle_that_is_too_long_is_no_example():
    assert examples.lay_out(Cut("a", "b", "m" * 60, "c"), encode, 256) is None
    assert examples.lay_out(Cut("a", "b", "", "c"), encode, 256) is None


def test_batches_are_padded_behind():
    some = [Example([2, 7, 8], [IGNORED, 8, EOS], [0, 0.1, 1], 1, "x"), Example([2], [EOS], [1], 0, "")]
    assert examples.batch_of(some) == (
        [[2, 7, 8], [2, 0, 0]], [[IGNORED, 8, EOS], [EOS, IGNORED, IGNORED]], [[0, 0.1, 1], [1, 0, 0]])


def test_a_step_takes_its_examples_in_parts_that_fit():
    some = [Example([0] * n, [], [], 0, "") for n in (10, 20, 30, 5, 200, 1)]
    parts = [[len(e.ids) for e in part] for part in examples.in_memory(some, 60)]
    assert parts == [[10, 20], [30, 5], [200], [1]]
    assert list(examples.in_memory([], 60)) == []


def test_batches_hold_examples_of_like_length():
    rng = random.Random(1)
    make = lambda: Example([0] * rng.randrange(1, 200), [], [], 0, "")
    groups = examples.batches(make, 4, rng)
    spread = [max(len(e.ids) for e in g) - min(len(e.ids) for e in g) for g, _ in zip(groups, range(16))]
    assert sum(spread) / len(spread) < 60


# ---------------------------------------------------- vocabulary and schedule

def test_the_vocabulary_takes_the_commonest_then_the_lowest_but_never_the_layout():
    chosen = examples.vocabulary({500: 9, 600: 3, 67: 99, 700: 1}, 5, 1000)
    assert chosen == [0, EOS, 500, 600, 700]
    assert len(examples.vocabulary({}, 90, 1000)) == 90
    assert not set(examples.ROWS) & set(examples.vocabulary({}, 90, 1000))
    assert examples.vocabulary({}, 0, 1000) is None and examples.vocabulary({}, 1000, 1000) is None


def test_the_learning_rate_rises_then_falls_to_its_floor():
    rates = [examples.learning_rate(i / 100) for i in range(101)]
    assert rates[0] < 0.2 and rates[5] == 1.0
    assert all(a > b for a, b in zip(rates[5:], rates[6:]))
    assert rates[100] == pytest.approx(0.05) and examples.learning_rate(3.0) == rates[100]


def test_the_training_ends_by_whichever_comes_first():
    assert examples.progress(30, 0, seconds=60) == 0.5
    assert examples.progress(30, 9, seconds=60, steps=10) == 0.9
    assert examples.progress(90, 1, seconds=60, steps=10) >= 1


# ------------------------------------------------------------------- sources

def write(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


LONG = "".join(f"let a{i} = {i};\n" for i in range(30))


def test_what_is_no_source_is_left_out_with_its_reason(tmp_path):
    write(tmp_path, {
        "a.rs": LONG, "copy.rs": LONG.replace("\n", "\r\n"), "notes.txt": LONG, "short.rs": "fn a() {}\n",
        "made.rs": "// @generated by a tool\n" + LONG, "x.min.js": LONG + "//", "flat.js": "var a = 1;" * 300,
        "bin.c": b"\0" * 300, "latin.py": LONG.encode() + b"\xe9", "node_modules/b.js": LONG + "// b",
        "talk.py": LONG + "# code is generated by hand here, do not edit lightly\n"})
    found, left = sources.collect(str(tmp_path))
    assert [s.path for s in found] == ["a.rs", "talk.py"]
    assert found[0].text == LONG and found[0].language == "rust"
    assert left == {"a copy": 1, "too short": 1, "generated": 2, "minified or data": 1, "binary": 1, "not UTF-8": 1}


def test_git_says_what_is_ignored(tmp_path):
    write(tmp_path, {"a.rs": LONG, "made/b.rs": LONG + "//", "new.rs": LONG + "// new", ".gitignore": "made/\n"})
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "add", "a.rs"], check=True)
    assert [s.path for s in sources.collect(str(tmp_path))[0]] == ["a.rs", "new.rs"]


def test_other_extensions_can_be_asked_for(tmp_path):
    write(tmp_path, {"a.rs": LONG, "b.foo": LONG})
    assert [s.path for s in sources.collect(str(tmp_path), ["foo"])[0]] == ["b.foo"]


def test_whole_files_are_held_out_and_stay_so():
    files = [source(path=f"{i}.rs") for i in range(40)]
    learn, held = sources.split(files, 0.1, 1)
    assert len(held) == 4 and len(learn) == 36 and not set(learn) & set(held)
    again = sources.split(files[:-1] + [source(path="new.rs")], 0.1, 1)[1]
    assert len(set(held) & set(again)) >= 3
    assert sources.split(files, 0, 1) == (sources.split(files, 0, 1)[0], [])
    assert len(sources.split(files[:2], 0.9, 1)[0]) == 1


# ------------------------------------------------------------------ messages

@pytest.mark.parametrize("given, said", [
    (["--rank", "0"], "--rank"), (["--held-out", "1"], "--held-out"), (["--length", "10"], "--length"),
    (["--minutes", "0"], "--minutes"), (["--steps", "0"], "--steps")])
def test_wrong_numbers_are_named(given, said, capsys):
    with pytest.raises(SystemExit):
        train.arguments([".", "--base", "b", "--out", "o", *given])
    assert said in capsys.readouterr().err


def test_time_is_the_limit_where_none_is_given():
    given = [".", "--base", "b", "--out", "o"]
    assert train.arguments(given).minutes == train.MINUTES
    assert train.arguments([*given, "--steps", "3"]).minutes is None


def test_an_empty_folder_is_told_so(tmp_path):
    args = train.arguments([str(tmp_path), "--base", "b", "--out", "o"])
    with pytest.raises(SystemExit, match="at least 2"):
        train.read_sources(args)
