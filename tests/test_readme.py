"""The README is short and leads on: what its links and commands name, tests/test_docs.py asks."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCREEN = 55  # lines that a window shows
MAKE = re.compile(r"^make ([a-z-]+)", flags=re.MULTILINE)


def test_two_screens_hold_it() -> None:
    assert len(README.splitlines()) <= 2 * SCREEN


def test_it_begins_with_the_two_commands() -> None:
    first = "\n".join(README.splitlines()[:SCREEN])
    assert {"demo", "test"} <= set(MAKE.findall(first))


def test_every_page_is_found_from_it() -> None:
    pages = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
    assert pages  # else this test reads nothing
    named = re.findall(r"\]\(([^)#]+)", README)
    assert [page for page in pages if page not in named] == []
