"""The set-ups that editors/README.md shows: the tests use its very text."""

import pathlib
import re

README = pathlib.Path(__file__).parents[2] / "editors" / "README.md"


def snippet(name: str) -> str:
    """The block of code behind the comment `<!-- tested: NAME -->`."""
    found = re.findall(rf"<!-- tested: {re.escape(name)} -->\n+```\w*\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"{README} is to have one block behind <!-- tested: {name} -->, and has {len(found)}"
    return found[0]
