"""What the README tells people to type has to exist."""

import re
import shlex
from pathlib import Path

import pytest

from visual_search.command_line import check_overrides
from visual_search.config import register_schema

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:bash|sh)\n(.*?)```", README, flags=re.DOTALL)
LINES = [
    line.split("  #")[0].strip()
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
TRAININGS = [line for line in LINES if "visual_search.train" in line]


def test_the_readme_holds_commands() -> None:
    assert len(LINES) >= 12
    assert len(TRAININGS) >= 7


@pytest.mark.parametrize("line", TRAININGS)
def test_every_training_command_composes(line: str) -> None:
    words = shlex.split(line)
    register_schema()
    check_overrides("train", words[words.index("visual_search.train") + 1 :])


def test_every_make_verb_exists() -> None:
    verbs = {
        verb
        for line in LINES
        if line.startswith("make")
        for verb in re.findall(r"(?:make|&&) ([a-z-]+)", line)
    }
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert {"demo", "test"} <= verbs <= known


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert len(local) >= 4
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_every_room_is_on_the_map() -> None:
    rooms = {p.parent.name for p in (ROOT / "visual_search").glob("*/__init__.py")}
    assert len(rooms) == 5
    assert [room for room in sorted(rooms) if f"`{room}/`" not in README] == []
