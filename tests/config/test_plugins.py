"""Builders of somebody else's: found where they are named or installed, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.composing import settings_of
from visual_search.__main__ import main as complete
from visual_search.cli.command_line import check_overrides, with_keys
from visual_search.config import plugins
from visual_search.config.builders import (
    GROUPS,
    ConfigError,
    bind,
    build,
    builders,
    config_folders,
    register_schema,
)
from visual_search.config.plugins import OWN, VARIABLE, marked, take_names
from visual_search.runs.finished import finished_run
from visual_search.runs.run import Run

NETWORKS = '''
import torch
from visual_search import builder
from visual_search.models.encoder import Encoder

@builder("model")
class Flat(Encoder):
    """One matrix.

    Args:
        width: Values.
    """

    def __init__(self, width: int = 4, name: str = "flat") -> None: ...

later = builder("model")(Flat)

@builder("objective")
def other(): ...

def unmarked(): ...
'''


def forget() -> None:
    for module in [name for name in sys.modules if name.startswith("lab_of_tests")]:
        del sys.modules[module]
    plugins._marks.cache_clear()
    plugins._declared.cache_clear()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package beside nothing that names it."""
    folder = tmp_path / "site" / "lab_of_tests"
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "networks.py").write_text(NETWORKS)
    yaml = "# One matrix.\n_target_: lab_of_tests.networks.Flat\nwidth: 4 # its values\n"
    (folder / "conf" / "model" / "flat.yaml").write_text(yaml)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv(VARIABLE, "")
    register_schema("train")
    forget()
    yield folder
    forget()


@pytest.fixture(params=["line", "environment", "module", "builder"])
def named(request: pytest.FixtureRequest, lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same package, made a plug-in in one of the ways that there are."""
    if request.param == "line":
        assert take_names(["plugins=[lab_of_tests]", "seed=1"]) == ["seed=1"]
    elif request.param == "environment":
        monkeypatch.setenv(VARIABLE, "lab_of_tests")
    else:
        told = lab.parent / "lab_of_tests-1.0.dist-info"
        told.mkdir()
        (told / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-of-tests\nVersion: 1.0\n")
        value = "lab_of_tests.networks" + (":Flat" if request.param == "builder" else "")
        (told / "entry_points.txt").write_text(f"[visual_search.models]\nflat = {value}\n")
    return lab


def test_a_plug_ins_builders_configs_and_keys_are_as_ours(named: Path) -> None:
    target = "lab_of_tests.networks.Flat"
    assert target in builders("model")
    assert "lab_of_tests.networks.unmarked" not in {one for g in GROUPS for one in builders(g)}
    settings = settings_of("train", "model=flat", "data=synthetic", "model.width=8")
    assert settings["model"] == {"_target_": target, "width": 8}
    with pytest.raises(ConfigError, match=r"model\.width='8' is of a wrong type"):
        bind("model", {"_target_": target, "width": "8"})
    with pytest.raises(ConfigError, match=r"model=flt.*did you mean 'model=flat'"):
        check_overrides("train", ["model=flt"])
    with pytest.raises(ConfigError, match=r"model\.widht is no setting.*'model\.width'"):
        check_overrides("train", ["model=flat", "model.widht=3"])
    assert with_keys("train", ["++model.name=1.10"]) == ['++model.name="1.10"']
    shown = check_overrides("train", ["model=flat", "--help"])
    assert "[flat]" in shown
    assert any("width: 4" in line and "its values" in line for line in shown.splitlines())


@pytest.mark.parametrize("word", ["plugins=[lab_of_tests]", "'plugins=[lab_of_tests]'"])
def test_tab_completion_knows_what_the_line_names(
    word: str, lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offered(*words: str) -> list[str]:
        line = " ".join(["visual-search train", *words])
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        monkeypatch.setattr(sys, "argv", ["visual-search", "-sc", "query=bash"])
        complete()
        return capsys.readouterr().out.split()

    assert offered("model=fla") == offered("plugins=[no_such_lab]", "model=fla") == []
    assert offered("plugins=[no_such_lab]", "model=plus") == ["model=plus_layer"]
    assert offered(word, "model=fla") == ["model=flat"]


def test_who_is_not_named_brings_nothing(lab: Path, tmp_path: Path) -> None:
    how = r"plugins=\[lab_of_tests\].*VISUAL_SEARCH_PLUGINS=lab_of_tests"
    node = {"_target_": "lab_of_tests.networks.Flat"}
    with pytest.raises(ConfigError, match=how):
        build("model", node)
    assert "lab_of_tests.networks" not in sys.modules
    with pytest.raises(ConfigError, match="model=flat"):
        check_overrides("train", ["model=flat"])
    with pytest.raises(ConfigError, match="plugins"):  # no key of a config: a file cannot name one
        check_overrides("train", ["+plugins=[lab_of_tests]"])

    run = Run(tmp_path / "run")
    parts = {part: {"a": 1} for part in ("data", "pictures", "loader", "trainer")}
    run.checkpoint.parent.mkdir(parents=True)
    run.checkpoint.touch()
    (run.folder / "metrics").mkdir()
    (run.folder / "metrics" / "summary.json").write_text('{"k": 5}')
    run.set_state("finished")
    parts["data"]["_target_"] = "visual_search.catalog.synthetic.synthetic"
    (run.folder / "config.yaml").write_text(str({**parts, "model": node}))
    with pytest.raises(ConfigError, match=f"names lab_of_tests.networks.Flat as its .*{how}"):
        finished_run(str(run.folder))


def test_one_that_is_here_and_marks_nothing_of_the_name_is_told_how(named: Path) -> None:
    with pytest.raises(ConfigError, match=r'@builder\("model"\)'):
        build("model", {"_target_": "lab_of_tests.networks.unmarked"})


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("plugins=[no_such_lab]", r"no_such_lab is not on the path.*PYTHONPATH=DIR"),
        ("plugins=[../lab]", r"names '\.\./lab'; expected modules"),
        ("plugins=", "names ''; expected modules"),
    ],
)
def test_names_that_are_no_modules_are_refused(lab: Path, argument: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        take_names([argument])


def test_what_a_plug_in_does_wrong_is_said(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "lab_of_tests")
    (lab / "conf" / "model" / "plus_layer.yaml").touch()
    with pytest.raises(ConfigError, match=r"lab_of_tests.*model.plus_layer\.yaml.*rename"):
        config_folders()
    (lab / "wrong.py").write_text('@builder("modle")\ndef x(): ...\n')
    forget()
    with pytest.raises(ConfigError, match=r"wrong\.py marks x .*'modle'; expected one of model,"):
        builders("model")
    (lab / "wrong.py").write_text('import no_such_library\n@builder("model")\ndef x(): ...\n')
    forget()
    with pytest.raises(ConfigError, match=r"cannot be imported.*no_such_library.*install"):
        build("model", {"_target_": "lab_of_tests.wrong.x"})


def test_a_broken_installation_is_left_out_and_said(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = lab.parent / "gone-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: gone\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[visual_search.models]\nx = gone.networks\n")
    assert builders("model")
    assert "gone.networks" in capsys.readouterr().err


def test_our_own_are_found_by_the_same_mark() -> None:
    assert "visual_search.models.variants.plus_layer" in marked(OWN, "model")
    assert {group for group in GROUPS if not marked(OWN, group)} == {
        "logger",
        "profiler",
        "trainer",
    }
