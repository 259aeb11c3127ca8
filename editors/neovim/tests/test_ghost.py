"""Grey text: on the screen exactly as it will be in the file, and in the file when it is taken."""

from conftest import PYTHON

LINE = 4  # of PYTHON, where suggestions are made; from 0


def rest_of_line(nvim) -> str:
    """What the buffer lacks of what the screen shows on the line."""
    return nvim.screen.line(LINE)[len(nvim.lines()[LINE]) :]


def wait_for_line(nvim, expected: str):
    nvim.until(
        lambda: nvim.lines()[LINE] == expected, f"the line to be {expected!r}, it is {nvim.lines()[LINE]!r}"
    )


def test_grey_text_is_on_the_screen_and_not_in_the_file(nvim):
    grey = nvim.suggest()
    assert nvim.lines()[LINE] == "    return fib"
    assert nvim.screen.line(LINE) == "    return fib" + grey.split("\n")[0]


def test_tab_takes_all_of_it(nvim):
    grey = nvim.suggest()
    nvim.keys("<Tab>")
    wait_for_line(nvim, "    return fib" + grey)
    nvim.keys("<Esc>:write<CR>")
    saved = nvim.home / "fibonacci.py"
    nvim.until(
        lambda: saved.read_text() == PYTHON.replace("    \n", f"    return fib{grey}\n", 1),
        "the file to be saved",
    )


def test_a_word_at_a_time(nvim):
    grey = nvim.suggest()
    nvim.keys("<C-l>")
    word = grey[: len("onacci")]
    wait_for_line(nvim, "    return fib" + word)
    # What is left is still there to be taken.
    nvim.until(lambda: nvim.screen.grey() == grey[len(word) :], "the rest of it")
    nvim.keys("<Tab>")
    wait_for_line(nvim, "    return fib" + grey)


def test_a_line_at_a_time(nvim):
    grey = nvim.suggest()
    nvim.keys("<C-j>")
    wait_for_line(nvim, "    return fib" + grey.split("\n")[0])


def test_taking_it_is_one_undo_step(nvim):
    grey = nvim.suggest()
    nvim.keys("<Tab>")
    wait_for_line(nvim, "    return fib" + grey)
    nvim.keys(" # more<Esc>")
    wait_for_line(nvim, "    return fib" + grey + " # more")
    nvim.keys("u")
    wait_for_line(nvim, "    return fib" + grey)
    nvim.keys("u")
    wait_for_line(nvim, "    return fib")
    nvim.keys("u")
    wait_for_line(nvim, "    ")
    nvim.keys("3<C-r>")
    wait_for_line(nvim, "    return fib" + grey + " # more")


def test_typing_over_keeps_it(nvim):
    grey = nvim.suggest()
    nvim.keys(grey[:3])
    wait_for_line(nvim, "    return fib" + grey[:3])
    nvim.until(lambda: nvim.screen.grey() == grey[3:], "the rest of it")


def test_typing_something_else_replaces_it(nvim):
    nvim.suggest()
    nvim.keys("zzz(")
    nvim.until(lambda: "zzz(" in nvim.lines()[LINE], "the keys")
    nvim.keys("<Tab>")
    # Whatever is suggested by now, nothing of the old text is left on the screen.
    nvim.until(
        lambda: "onacci(n - 1)" not in nvim.screen.line(LINE).replace("fibonacci(n - 1)", ""),
        "the old text to be gone",
    )


def test_what_is_shown_and_taken_is_counted(nvim):
    nvim.ask("gemma/statistics", {"reset": True})
    grey = nvim.suggest()
    nvim.keys("<C-l>")
    wait_for_line(nvim, "    return fib" + grey[: len("onacci")])
    nvim.keys("<Tab>")
    wait_for_line(nvim, "    return fib" + grey)
    counted = nvim.until(lambda: (c := nvim.ask("gemma/statistics"))["wholes"] == 1 and c, "the count")
    assert (counted["words"], counted["lines"], counted["accepted"]) == (1, 0, 1)
    assert counted["shown"] >= 1
    assert counted["characters"] == len(grey)


def test_taken_right_after_a_key_nothing_is_doubled(nvim):
    grey = nvim.suggest()
    nvim.keys(grey[:2] + "<Tab>")
    wait_for_line(nvim, "    return fib" + grey)


def test_a_backspace_takes_grey_text_away_or_back_to_what_it_was(nvim):
    grey = nvim.suggest()
    nvim.keys("q")
    nvim.until(lambda: nvim.lines()[LINE] == "    return fibq", "the key")
    nvim.keys("<BS>")
    nvim.until(
        lambda: nvim.lines()[LINE] == "    return fib" and nvim.screen.grey() in ("", grey),
        "no other grey text",
    )


def test_wide_characters_before_it(nvim):
    line = "名前 = ['日本', '👍🏽', 'e\u0301']; gru\u0308n = 名前["
    nvim.open("wide.py", f"# 一\n\t# tab\n{line}\n")
    nvim.keys("3GA0")
    grey = nvim.grey()
    assert nvim.screen.line(2).startswith(line + "0" + grey.split("\n")[0])
    nvim.keys("<Tab>")
    # What was read may have been the beginning of a text that was still being computed.
    taken = line + "0" + grey.rstrip("\n")
    nvim.until(lambda: "\n".join(nvim.lines()[2:]).startswith(taken), "the text")


def test_dismissed_until_the_next_key(nvim):
    grey = nvim.suggest()
    nvim.keys("<C-x>")
    nvim.no_grey()
    assert nvim.lines()[LINE] == "    return fib"
    nvim.keys(grey[0])
    nvim.grey()


def test_leaving_insert_mode_takes_it_away(nvim):
    nvim.suggest()
    nvim.keys("<Esc>")
    nvim.no_grey()
    assert nvim.lines()[LINE] == "    return fib"


def test_tab_is_a_tab_where_nothing_is_suggested(nvim):
    nvim.open("plain.txt", "x")
    nvim.lua("require('gemma').toggle(false)")
    nvim.keys("A<Tab>y")
    nvim.until(lambda: nvim.lines() == ["x\ty"], "a tab")
    nvim.lua("require('gemma').toggle(true)")


def test_a_key_asks_for_another(nvim):
    nvim.open("fibonacci.py", PYTHON)
    nvim.keys("5GAreturn fib")
    nvim.grey()
    nvim.keys("<C-x>")
    nvim.no_grey()
    nvim.keys("<C-n>")
    nvim.grey()
