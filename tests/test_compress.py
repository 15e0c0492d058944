"""A finished run in fewer bytes: what is read, measured, written, printed, and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.test_compare import Workshop
from visual_search.compress import compress_run, print_compression
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import CompressSchema
from visual_search.runs.finished import Measured

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    return workshop.measure("noisy", 0.5, "floors=false", "near_duplicates=false")


@pytest.fixture
def copied(measured: Measured, tmp_path: Path) -> Path:
    """The run's folder, to be spoilt."""
    return Path(shutil.copytree(measured.run.folder, tmp_path / "noisy" / "0123456789"))


def asked(folder: Path, **more: Any) -> CompressSchema:
    return CompressSchema(run=str(folder), **more)


def test_a_run_leaves_a_table_a_figure_and_a_verdict(
    measured: Measured, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(settings: dict[str, Any]) -> None:
        pytest.fail("pictures are not needed")

    monkeypatch.setattr("visual_search.runs.parts.build_catalog", gone)
    found = compress_run(asked(measured.run.folder))
    assert found.folder == measured.run.folder / "compression"
    summary = json.loads((found.folder / "summary.json").read_text(encoding="utf-8"))
    table = pd.read_csv(found.folder / "compression.csv")
    assert table["codec"].tolist() == [line["codec"] for line in summary["codecs"]]
    assert table["codec"].tolist() == ["Flat", "SQfp16", "SQ8", "SQ6", "SQ4"]  # of 16 numbers
    flat = measured.run.summary()
    assert summary["codecs"][0]["value"] == flat["micro_map_at_5"]
    assert summary["codecs"][0]["macro"] == flat["macro_map_at_5"]
    assert summary["sentence"] == found.verdict.sentence
    assert (summary["times_smaller"], summary["goal_bytes"]) == (8, 8)
    assert not summary["unit_length"]
    assert set(summary["left_out"]) == {"PQ", "PCA and first numbers"}
    assert (found.folder / "compression.png").read_bytes().startswith(b"\x89PNG")
    assert summary["reached"] == bool(table["difference"].iloc[-1] >= -0.01)  # 4 bit: 8 bytes

    print_compression(found)
    printed = capsys.readouterr().out
    assert " ".join(found.verdict.sentence.split()) in " ".join(printed.split())
    assert str(found.folder / "compression.png") in printed.replace("\n", "")
    assert "Left out: PQ: " in printed
    assert max(map(len, printed.splitlines()[:8])) <= 80


def test_the_same_again_is_the_same_and_goes_where_it_is_told(
    measured: Measured, tmp_path: Path
) -> None:
    first = compress_run(asked(measured.run.folder, out=str(tmp_path / "a")))
    again = compress_run(asked(measured.run.folder, out=str(tmp_path / "b"), times_smaller=4.0))
    pd.testing.assert_frame_equal(first.measured.table, again.measured.table)
    assert again.verdict.goal_bytes == 16
    assert (tmp_path / "b" / "compression.csv").is_file()


def test_what_is_no_finished_run_is_refused(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run is named; expected run=PATH"):
        compress_run(CompressSchema())
    with pytest.raises(ConfigError, match="is no run's folder"):
        compress_run(asked(tmp_path))
    (copied / "status.json").write_text('{"state": "interrupted"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is interrupted; expected .* start its command again"):
        compress_run(asked(copied))


def test_embeddings_that_are_gone_or_of_another_measurement_are_refused(copied: Path) -> None:
    file = copied / "embeddings" / "gallery.npy"
    gallery = np.load(file)
    for held, message in (
        (gallery[1:], r"as gallery; expected a row an item: measure it again"),
        (gallery[::-1], r"do not give its saved result: \d+ of \d+ queries"),
        (gallery[:, :4], r"do not give its saved result: .*16 wide, the index 4"),
    ):
        np.save(file, np.ascontiguousarray(held))
        with pytest.raises(ConfigError, match=message):
            compress_run(asked(copied))
    file.unlink()
    with pytest.raises(ConfigError, match=r"cannot be read .*expected embeddings/gallery\.npy"):
        compress_run(asked(copied))


def test_no_codec_is_chosen_where_no_answer_can_be_wrong(copied: Path) -> None:
    file = copied / "metrics" / "summary.json"
    summary = json.loads(file.read_text())
    file.write_text(json.dumps(summary | {"all_relevant": True}))
    assert "right by definition" in compress_run(asked(copied)).verdict.sentence


def test_an_older_protocol_is_refused(copied: Path) -> None:
    config = (copied / "config.yaml").read_text(encoding="utf-8")
    text = "\n".join(line for line in config.splitlines() if "protocols." not in line)
    (copied / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"older than named protocols .*visual_search\.evaluate"):
        compress_run(asked(copied))


@pytest.mark.parametrize("limits", [{"max_loss": -1.0}, {"times_smaller": 1.0}])
def test_impossible_limits_are_refused(measured: Measured, limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected 0 or more, and above 1"):
        compress_run(asked(measured.run.folder, **limits))
