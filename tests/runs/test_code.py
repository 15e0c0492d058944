"""What of a builder's code counts: what it reaches in its package, however that is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.composing import typed
from visual_search.config.plugins import VARIABLE
from visual_search.runs.code import NUMBERS, changes, code_of, code_of_run

NETWORKS = '''"""A module."""
from __future__ import annotations
from typing import TYPE_CHECKING
import torch
from visual_search import builder
from visual_search.models.encoder import Encoder
from .parts import SIZE, Base
import code_of_tests.whole as whole
from code_of_tests.all_of import *
if TYPE_CHECKING:
    from code_of_tests.told import Told
if not TYPE_CHECKING:
    Told = object
SIZE = SIZE + 1

SCALE = 2.0  # of what it gives


@builder("model")
class Flat(Base):
    """One matrix."""

    def __init__(self, width: int = 4) -> None:
        from code_of_tests.lazy import start
        self.width = width * SIZE
        start(f"{width} of {SIZE}")

    def encode(self, images: Told) -> Told:
        return whole.shrink(short(images) * SCALE)


def short(x): "Doubles."; return 2 * x


def beside() -> int:
    return 1
'''
FILES = {
    "__init__.py": "",
    "networks.py": NETWORKS,
    "parts.py": "SIZE = 3\nclass Base:\n    depth = 2\nclass Other:\n    depth = 5\n",
    "lazy.py": "def start(text):\n    print(text)\n",
    "whole.py": "def shrink(x):\n    return x\ndef grow(x):\n    return x\n",
    "all_of.py": "STARRED = 1\n",
    "told.py": "class Told:\n    size = 1\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "code_of_tests"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(VARIABLE, "code_of_tests")
    return folder


def code_with(package: Path, file: str, before: str, after: str) -> str:
    assert FILES[file].count(before) == 1
    (package / file).write_text(FILES[file].replace(before, after))
    return code_of("code_of_tests.networks.Flat")


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("networks.py", "SCALE = 2.0", "SCALE = 3.0"),
        ("networks.py", "width: int = 4", "width: int = 5"),
        ("networks.py", "{width} of {SIZE}", "{width} on {SIZE}"),
        ("networks.py", "width * SIZE", "width + SIZE"),
        ("networks.py", "SCALE = 2.0", "SCALE = 2.0\ntorch.manual_seed(1)"),
        ("networks.py", "(short(images) * SCALE)\n", "(short(images) * SCALE)\n    depth = 1\n"),
        ("networks.py", "SIZE + 1", "SIZE + 2"),
        ("networks.py", "Told = object", "Told = float\n    torch.manual_seed(1)"),
        ("networks.py", "return 2 * x", "return 3 * x"),
        ("all_of.py", "STARRED = 1", "STARRED = 2"),
        ("parts.py", "SIZE = 3", "SIZE = 4"),
        ("parts.py", "depth = 2", "depth = 3"),
        ("lazy.py", "print(text)", "print(text, 1)"),
        ("whole.py", "def shrink(x):\n    return x", "def shrink(x):\n    return -x"),
        ("whole.py", "def grow(x):\n    return x", "def grow(x):\n    return -x"),
    ],
)
def test_whatever_it_reaches_counts(package: Path, file: str, before: str, after: str) -> None:
    code = code_of("code_of_tests.networks.Flat")
    assert code_with(package, file, before, after) != code


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("networks.py", "  # of what it gives", "  # otherwise"),
        ("networks.py", '"""One matrix."""', '"""Two\n\n    matrices."""'),
        ("networks.py", '    """One matrix."""\n\n', ""),
        ("networks.py", '"""A module."""', ""),
        ("networks.py", "start(f", "start(  # why\n            f"),
        ("networks.py", "return 1", "return 2"),
        ("networks.py", "SCALE = 2.0", "def above() -> None: ...\nSCALE = 2.0"),
        ("parts.py", "depth = 5", "depth = 6"),
        ("told.py", "size = 1", "size = 2"),
    ],
)  # fmt: skip
def test_how_it_is_written_and_what_stands_beside_it_do_not(
    package: Path, file: str, before: str, after: str
) -> None:
    code = code_of("code_of_tests.networks.Flat")
    assert len(code) == 10
    assert code_with(package, file, before, after) == code


def test_of_a_library_there_is_none() -> None:
    assert code_of("lightning.pytorch.callbacks.EarlyStopping") == ""
    assert code_of("no_such_package.x") == ""
    assert code_of("") == ""


def test_a_run_has_the_code_of_every_part_that_decides_it() -> None:
    settings = typed("train", "experiment=simclr", "data=synthetic")
    mine = {"best": {"_target_": "visual_search.training.callbacks.charts.FloorChart"}}
    code = code_of_run(settings, mine)
    assert set(code) == {
        "model", "objective", "augmentation", "sampler", "protocol", "callbacks.best"
    }  # fmt: skip
    assert len(set(code.values())) == len(code)
    settings.callbacks = mine
    other = {**code, "model": "0" * 10, "callbacks.best": "1" * 10}
    assert changes(other, code, settings) == "residual_encoder, FloorChart have changed"


def test_a_release_that_changes_numbers_is_another_code(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = typed("train", "data=synthetic")
    before = code_of_run(settings, {})
    monkeypatch.setitem(NUMBERS, "9.8", "warm-up counts steps")
    middle = code_of_run(settings, {})
    assert middle == before | {"visual_search": "9.8"}
    monkeypatch.setitem(NUMBERS, "9.9", "gem pools squares")
    now = code_of_run(settings, {})
    assert "9.8: warm-up counts steps; 9.9: gem pools squares" in changes(before, now, settings)
    assert changes(middle, now, settings) == "visual_search (9.9: gem pools squares) has changed"
