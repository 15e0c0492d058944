"""What the README tells people to type has to exist."""

import re
import shlex
from pathlib import Path

import pytest

from visual_search.cli.command_line import check_overrides, with_keys
from visual_search.config.builders import register_schema

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:bash|sh)\n(.*?)```", README, flags=re.DOTALL)
LINES = [
    line.split("  #")[0].strip()
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
COMMAND = re.compile(r"visual_search\.(\w+)")
COMMANDS = [(COMMAND.search(line)[1], line) for line in LINES if COMMAND.search(line)]


def test_the_readme_holds_commands() -> None:
    assert len(LINES) >= 18
    assert {"train", "evaluate", "compare", "leaderboard"} <= {name for name, _ in COMMANDS}
    assert len(COMMANDS) >= 15


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_every_command_composes(name: str, line: str) -> None:
    words = shlex.split(line)
    register_schema()
    arguments = words[words.index(f"visual_search.{name}") + 1 :]
    check_overrides(name, with_keys(name, arguments))


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
    assert rooms  # else this test reads nothing
    assert [room for room in sorted(rooms) if f"`{room}/`" not in README] == []
