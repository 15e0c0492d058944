"""``--help`` of a command: what may be chosen and set, with what it is for."""

from __future__ import annotations

import io

import pytest

from visual_search.cli.command_line import check_overrides, run_command
from visual_search.config.builders import ConfigError, register_schema
from visual_search.config.schemas import SCHEMAS


def shown(
    command: str, *arguments: str, patch: pytest.MonkeyPatch, width: int = 80
) -> dict[str, str]:
    """Returns what stands on the lines of each key, comments joined; other lines by themselves."""
    register_schema()
    patch.setenv("COLUMNS", str(width))
    lines: dict[str, str] = {}
    for line in check_overrides(command, [*arguments, "--help"]).splitlines():
        left, sign, comment = line.partition("# ")
        if not left.strip():
            lines[list(lines)[-1]] += f" {comment}" if sign else ""
        else:
            lines[left.strip()] = comment
        if sign:
            assert len(line) <= width, line
    return lines


@pytest.mark.parametrize("width", [80, 120])
def test_the_comment_of_each_key_stands_beside_it(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown("train", patch=monkeypatch, width=width)
    assert lines["seed: 0"]
    assert "cosine, which falls to 0 at the last step" in lines["schedule: constant"]  # a schema's
    assert "items" in lines["max_epochs: 40"]  # a comment of YAML
    assert "num_items" in lines["gallery: per_category"]
    assert "UMAP" in lines["min_dist: 0.1"]  # a builder's docstring
    assert "several jobs" in " ".join(lines).lower()


def test_what_is_given_beside_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown("train", "-m", "data=table", "experiment=simclr", "seed=1,2", patch=monkeypatch)
    assert "[table]" in " ".join(lines)
    assert "item_id: item_id" in lines
    assert "name: simclr" in lines
    assert "seed: 0" in lines  # the jobs differ in it
    assert lines["temperature: 0.2"]


def test_a_choice_of_ones_own_brings_its_comments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    (folder := tmp_path / "model").mkdir()  # type: ignore[operator]
    text = "defaults: [plain_encoder]\nwidth: 8 # less\n"
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    lines = shown("train", f"hydra.searchpath=[file://{tmp_path}]", "model=tiny", patch=monkeypatch)
    assert lines["width: 8"] == "less"


@pytest.mark.parametrize("command", SCHEMAS)
def test_help_ends_well_and_starts_nothing(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [command, "--help"])
    run_command(command, lambda settings: pytest.fail("it started"))
    out = capsys.readouterr().out
    assert out.startswith(f"visual-search {command}: ")
    assert f"python -m visual_search.{command} " in out
    assert ("sampler: balanced" in out) == (command == "train")  # no group of another command


def test_a_terminal_without_a_sign_gets_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr("sys.argv", ["search", "--help"])  # an example of it has a euro sign
    run_command("search", lambda settings: pytest.fail("it started"))
    assert b"Preis (\\u20ac)" in written.getvalue()


def test_a_wrong_key_beside_it_is_named() -> None:
    register_schema()
    with pytest.raises(ConfigError, match=r"mean 'loader\.batch_size'"):
        check_overrides("train", ["--help", "loader.batchsize=3"])
