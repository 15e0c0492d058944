"""What README.md and docs/ say is so: examples run, tables are computed again, links exist.

The tables that compare metric libraries: tests/retrieval/test_library_differences.py.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml

import visual_search
from visual_search.cli.command_line import check_overrides, with_keys
from visual_search.config.builders import register_schema
from visual_search.config.plugins import VARIABLE, take_names
from visual_search.retrieval import metrics, protocols
from visual_search.retrieval.protocol import MAX_PER_CATEGORY, OnLeak
from visual_search.retrieval.statistics import MIN_QUERIES

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
}
METRICS = PAGES["docs/metrics.md"]
# Page -> its ```python blocks and the >>> examples in them, so that none is lost unseen.
EXAMPLES = {"docs/metrics.md": (25, 81)}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def table_after(heading: str) -> list[dict[str, str]]:
    section = re.split(r"^#+ ", METRICS.split(f"\n### {heading}\n")[1], flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    names, _, *rows = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in rows]


@pytest.mark.parametrize("name", sorted({*PAGES} - {"docs/python.md"}))
def test_every_python_block_runs(name):
    found = blocks(PAGES[name], "python")
    assert all(">>> " in block for block in found), "a ```python block that nothing runs"
    text = "".join(found)
    examples = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    complaints: list[str] = []
    result = doctest.DocTestRunner().run(examples, out=complaints.append)
    assert result.failed == 0, "".join(complaints)
    counted = (len(found), result.attempted)
    assert result.attempted == len(re.findall(r"^>>> ", text, re.MULTILINE))
    assert counted == EXAMPLES.get(name, counted)


def run_all(cells, folder, monkeypatch):
    """Runs Python in a folder, a cell after the other; gives the names, and what cells end in."""
    monkeypatch.chdir(folder)
    names, values = {}, []
    for cell in cells:
        *statements, last = ast.parse(cell).body
        exec(compile(ast.Module(statements, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            values.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
        else:
            exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return names, values


@pytest.mark.slow
def test_every_block_of_the_page_of_python_runs(tmp_path, monkeypatch):
    def is_here(block):
        names = re.findall(r"^import ([\w, ]+)", block, re.MULTILINE)
        return all(find_spec(one.split()[0]) for line in names for one in line.split(","))

    found = blocks(PAGES["docs/python.md"], "python")
    assert len(found) == 7
    left = [block for block in found if is_here(block)]
    assert {*found} - {*left} <= {block for block in found if "open_clip" in block}
    names, _ = run_all(left, tmp_path, monkeypatch)
    assert names["embeddings"].shape[1] == names["run"].summary["embedding_dim"]
    assert {"cross_entropy", "mine", "mean_colour", "timm"} <= {*os.listdir("outputs")}


@pytest.mark.slow
def test_the_notebook_runs_and_shows_the_report(tmp_path, monkeypatch):
    notebook = json.loads((ROOT / "examples" / "pictures_to_search.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    _, values = run_all(["".join(cell["source"]) for cell in cells], tmp_path, monkeypatch)
    table, run, standing, hits = values
    assert set(table.columns) == {"train", "val", "test"}
    assert "<iframe srcdoc=" in run._repr_html_()
    assert standing.startswith("mAP@5 ")
    assert [hit[0] for hit in hits] == [1, 2, 3, 4, 5]


def test_the_pages_with_counted_examples_exist():
    assert set(EXAMPLES) <= set(PAGES)
    assert len(EXAMPLES) >= 1


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(text: str) -> list[str]:
    return [anchor(heading) for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)]


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(PAGES[name])):
        path, _, fragment = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / name).parent / path if path else ROOT / name
        exists = target.exists()
        if exists and fragment:
            exists = fragment in anchors(target.read_text(encoding="utf-8"))
        if not exists:
            lost.append(link)
    assert lost == []


def test_the_contents_name_every_section():
    contents = METRICS.split("\n## Contents\n")[1].split("\n## ")[0]
    named = re.findall(r"\]\(#([^)]+)\)", contents)
    _title, first, second, *sections = anchors(METRICS)
    assert (first, second) == ("which-number-should-i-quote", "contents")
    assert named == sections
    assert len(sections) >= 29


def test_what_a_perfect_model_has_under_the_rule_of_2023():
    rows = table_after("reference_2023")
    assert len(rows) == 6
    for row in rows:
        items = int(row["items in the category"])
        others = items - 1
        with_query = np.arange(1, 6)[None] <= items
        without, found = np.arange(1, 6)[None] <= others, np.array([others])
        values = [
            metrics.reference_2023(with_query, 5)[0],
            metrics.precision_at_k(without, found, 5)[0],
            metrics.average_precision_at_k(without, found, 5)[0],
        ]
        shown = ["left out" if np.isnan(value) else f"{value:.3f}" for value in values]
        assert list(row.values())[1:] == shown


PROTOCOLS = {row["protocol"].split("`")[1]: row for row in table_after("Who asks whom")}
BUILDERS = {name: getattr(protocols, name) for name in PROTOCOLS}


def test_the_page_describes_every_protocol():
    configs = {path.stem for path in ROOT.glob("conf/protocol/*.yaml")}
    assert len(PROTOCOLS) == 8
    assert set(PROTOCOLS) == configs - {"development_benchmark"}  # gallery_query with a larger side
    assert f"{MAX_PER_CATEGORY:,} items a category" in PROTOCOLS["gallery_query"]["gallery"]
    assert f"fewer than {MIN_QUERIES} scored queries" in METRICS


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_a_protocol_leaves_out(name):
    said = PROTOCOLS[name]["left out of a query's answers"]
    words = {"item": "itself", "group": "its whole group", "nothing": "nothing"}
    parameter = inspect.signature(BUILDERS[name]).parameters.get("exclude")
    excluded = parameter.default if parameter else "nothing"
    assert re.split(r" \(|:", said)[0] == words[excluded]


def test_what_a_leak_can_do():
    rows = table_after("Leaks")
    assert [row["on_leak"].split("`")[1] for row in rows] == list(get_args(OnLeak))
    default = inspect.signature(protocols.gallery_query).parameters["on_leak"].default
    assert [row["on_leak"] for row in rows if "(default)" in row["on_leak"]] == [
        f"`{default}` (default)"
    ]


LINES = [
    line.split("  #")[0].strip()
    for page in PAGES.values()
    for language in ("bash", "sh")
    for block in blocks(page, language)
    for line in block.replace("\\\n", " ").splitlines()
]
COMMANDS = [shlex.split(line) for line in LINES if line.startswith("python -m visual_search.")]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_names_what_exists(words, monkeypatch):
    command = words[2].removeprefix("visual_search.")
    if any(word.startswith("plugins=") for word in words):
        monkeypatch.syspath_prepend(str(ROOT / "examples" / "my_lab"))
    monkeypatch.setenv(VARIABLE, "")
    overrides = with_keys(command, take_names(words[3:]))
    chosen = dict(word.split("=", 1) for word in overrides if not word.startswith("-"))
    for group in ("protocol", "split"):
        if group in chosen:
            assert (ROOT / "conf" / group / f"{chosen[group]}.yaml").is_file()
    settings = {key for key in chosen if key.startswith("protocol.")}
    if "protocol" in chosen:
        builder = {"development_benchmark": "gallery_query"}.get(  # which it builds on
            chosen["protocol"], chosen["protocol"]
        )
        known = inspect.signature(getattr(protocols, builder)).parameters
        assert {key.removeprefix("protocol.") for key in settings} <= set(known)
    register_schema()
    check_overrides(command, overrides)


def test_the_pages_hold_commands():
    named = {words[2].removeprefix("visual_search.") for words in COMMANDS}
    assert {"train", "evaluate", "compare", "leaderboard"} <= named


def test_every_make_verb_exists():
    verbs = {
        verb
        for line in LINES
        if line.startswith("make")
        for verb in re.findall(r"(?:make|&&) ([a-z-]+)", line)
    }
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert {"demo", "test"} <= verbs <= known


def test_every_room_is_on_the_map():
    rooms = {path.parent.name for path in (ROOT / "visual_search").glob("*/__init__.py")}
    assert rooms  # else this test reads nothing
    assert [one for one in sorted(rooms) if f"`{one}/`" not in PAGES["docs/architecture.md"]] == []


def test_the_settings_of_relevance_are_settings():
    settings = [row["setting"] for row in table_after("What is relevant")]
    assert len(settings) == 5
    known = inspect.signature(protocols.gallery_query).parameters
    for setting in settings:
        assert re.fullmatch(r"`protocol\.(\w+)=\[[\w,]+\]`", setting)[1] in known


def test_the_versions_are_those_that_the_project_is_tested_with():
    """Another version in constraints.txt: look whether the tables still hold, then say so there."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    versions = {row["library"]: row["version"] for row in table_after("Versions")}
    assert len(versions) == 6
    both = set(versions) & set(pinned)
    assert {"torchmetrics", "scikit-learn", "faiss-gpu"} <= both
    assert {name: versions[name] for name in both} == {name: pinned[name] for name in both}


def test_a_version_stands_with_what_changed_and_how_to_cite_it() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == visual_search.__version__
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(cited["version"]) == visual_search.__version__
    assert cited["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:200]
