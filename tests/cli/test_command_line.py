"""The console script: which command it starts, and what it offers after Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import visual_search
from visual_search import __main__ as console
from visual_search.cli import command_line
from visual_search.cli.command_line import check_overrides
from visual_search.config.builders import ConfigError, register_schema

KNOWN = ", ".join(console.COMMANDS)
PROBE = """
import sys

def main():
    entry = sys.modules["__main__"]
    print(sys.argv[1:], entry.__spec__.name if entry.__spec__ else None)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that says how it was started, in place of the real ones."""
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    monkeypatch.setattr(visual_search, "__path__", [*visual_search.__path__, str(tmp_path)])
    monkeypatch.setattr(console, "COMMANDS", {"probe": "Says how it was started."})
    monkeypatch.setattr(console, "ANY_COMMAND", "probe")


def _say(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["visual-search", *arguments])
    console.main()


@pytest.fixture
def suggestions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """What a shell would offer with the cursor at the point, by default at the end."""

    def found(line: str, point: int | None = None, shell: str = "bash") -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line) if point is None else point))
        _say(monkeypatch, "-sc", f"query={shell}")
        said = capsys.readouterr()
        assert not said.err
        return said.out.split()

    return found


@pytest.mark.usefixtures("probe")
def test_command_gets_what_follows_it_and_is_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _say(monkeypatch, "probe", "-m", "seed=1,2")
    # Lightning starts the other processes of a run as `python -m <this name> <these arguments>`.
    assert capsys.readouterr().out == "['-m', 'seed=1,2'] visual_search.probe\n"


@pytest.mark.usefixtures("probe")
@pytest.mark.parametrize("arguments", [["-sc", "install=bash"], ["probe", "-sc", "install=bash"]])
def test_completion_script_is_asked_of_a_command(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _say(monkeypatch, *arguments)
    assert capsys.readouterr().out.startswith("['-sc', 'install=bash']")


def test_every_command_is_a_module_and_says_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _say(monkeypatch, "--help")
    text = capsys.readouterr().out
    for name, purpose in console.COMMANDS.items():
        assert (Path(visual_search.__file__).parent / f"{name}.py").is_file()
        assert f"\n  {name:<{max(map(len, console.COMMANDS))}}  {purpose}\n" in text
        assert len(purpose) < 80


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _say(monkeypatch, "--version")
    assert capsys.readouterr().out == f"{visual_search.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], f"'trian' is no command; expected one of {KNOWN}; did you mean 'train'?"),
        (["dance"], f"'dance' is no command; expected one of {KNOWN}; see visual-search --help"),
        (["seed=1"], "as in: visual-search train seed=1"),
        (["--seed=1"], "unknown option '--seed=1'; expected a command first (check, train"),
        ([], "Usage:"),
    ],
)
def test_wrong_command_ends_with_status_2_and_names_the_nearest(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        _say(monkeypatch, *arguments)
    shown = capsys.readouterr()
    assert message in shown.err
    assert not shown.out


def test_completion_offers_commands_then_their_overrides(
    suggestions: Callable[..., list[str]],
) -> None:
    for line, expected in (
        ("visual-search ", KNOWN.split(", ")),
        ("visual-search tr", ["train"]),
        ("visual-search dance", []),
        ("visual-search dance ", []),
        ("visual-search evaluate protocol=leave", ["protocol=leave_one_out"]),
        ("visual-search train mod", ["model.", "model="]),
        ("/opt/python/bin/visual-search train model=ba", ["model=backbone", "model=baseline"]),
        ("visual-search  train  experiment=pl", ["experiment=plus_layer"]),
        ("visual-search train data=folder data.ro", ["data.root="]),
        ("visual-search train -m loader.num", ["loader.num_workers="]),
        ("visual-search train experiment=dance loader.num", []),
    ):
        assert suggestions(line) == expected, line
    # Fish gets a line each; what counts is what is left of the cursor.
    budgets = ["budget=demo", "budget=full", "budget=smoke"]
    assert suggestions("visual-search train budget= seed=1", 27, shell="fish") == budgets


BASH = """
eval "$(visual-search -sc install=bash)"
COMP_LINE=$1 COMP_POINT=${#1} COMP_CWORD=$2
complete -p visual-search
hydra_bash_completion
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_completes(tmp_path: Path) -> None:
    line, word = "visual-search train budget=smoke profiler=", 3
    script = tmp_path / "visual-search"
    start = "from visual_search.__main__ import main; main()"
    script.write_text(f"#!{sys.executable}\n{start}\n", encoding="utf-8")
    script.chmod(0o755)
    result = subprocess.run(
        ["bash", "-c", BASH, "bash", line, str(word)],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    rule, *found = result.stdout.splitlines()
    assert rule.endswith("-F hydra_bash_completion visual-search"), result.stderr
    assert found == ["profiler=simple"]


@pytest.mark.parametrize("command", ["check", "download"])
def test_a_key_of_data_needs_a_choice_of_data(command: str) -> None:
    register_schema()
    with pytest.raises(ConfigError, match=r"no data is chosen; expected data=OPTION beside it$"):
        check_overrides(command, ["data.root=x"])


def test_a_torchvision_of_another_torch_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def task(config: object) -> object:
        import torch

        torch.library.register_fake("torchvision::nowhere")(task)  # as torchvision asks of nms
        raise AssertionError("torch has an operator of that name")

    with pytest.raises(SystemExit) as end:
        command_line._readable(task)(None)
    assert end.value.code == 1
    said = capsys.readouterr().err
    for package in ("torch", "torchvision"):
        assert f"{package} {version(package)}" in said
    assert "pip uninstall torchvision" in said


def test_a_package_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def needs(name: str) -> Callable[[object], object]:
        def task(config: object) -> object:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

        return command_line._readable(task)

    with pytest.raises(SystemExit) as end:
        needs("pandas")(None)
    assert end.value.code == 1
    assert "pandas is not installed; expected it here: pip install" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError):  # a fault of ours
        needs("visual_search.nowhere")(None)
