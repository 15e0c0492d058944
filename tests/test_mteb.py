"""A catalogue as a task of mteb, asked by mteb itself: the numbers are those measured here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from tests.composing import typed
from visual_search.config.builders import ConfigError
from visual_search.evaluate import measure_from_outside
from visual_search.mteb import mteb_command

MODEL = "mteb/baseline-random-encoder"  # one vector a picture, by its pixels


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Forty pictures of ten senders: JPEG, PNG with a transparent part, and turned by EXIF."""
    folder, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
    lines = ["item_id,image,category,sender"]
    for number in range(40):
        picture = Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
        name = f"{number}.{'png' if number % 4 == 1 else 'jpg'}"
        if number % 4 == 1:
            picture.putalpha(Image.fromarray(rng.integers(0, 255, (20, 30), dtype=np.uint8)))
        exif = Image.Exif()
        if number % 4 == 2:
            exif[0x0112] = 6
        picture.save(folder / name, exif=exif)
        lines.append(f"é {number},{name},{'hat' if number % 3 else 'shoe'},{number % 10}")
    (folder / "shop.csv").write_text("\n".join(lines), encoding="utf-8")
    split = ["split=hash", "split.val_fraction=0.1", "split.test_fraction=0.6"]
    cache = f"pictures.cache_dir={folder / 'cache'}"
    data = ["data=table", f"data.path={folder / 'shop.csv'}", "data.group=sender"]
    return [*data, *split, cache, "pictures.size_px=32", "protocol=leave_one_out"]


@pytest.mark.slow
def test_mteb_and_this_package_measure_the_same(shop: list[str], tmp_path: Path) -> None:
    pytest.importorskip("mteb", reason="the extra 'mteb' is not installed")
    mteb_command(typed("mteb", *shop, f"out={tmp_path / 'task'}"))
    environ = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(tmp_path / "task" / "task.py"), MODEL]
    asked = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert asked.returncode == 0, asked.stderr[-2000:]
    title, *rows = asked.stdout.splitlines()
    assert MODEL in title
    theirs = {name: float(value) for name, value, _ in map(str.split, rows)}

    embedder = ["embedder=mteb", f"embedder.model={MODEL}", f"outputs={tmp_path / 'outputs'}"]
    bare = ["floors=false", "near_duplicates=false"]
    measured = measure_from_outside(typed("evaluate", *shop, *embedder, *bare))
    assert measured.run.folder.parts[-2] == "baseline-random-encoder"
    summary = measured.run.summary()
    names = {name: "micro_" + name.lower().replace("@", "_at_") for name in theirs}
    assert len(theirs) == 7
    assert theirs == {name: pytest.approx(summary[own], abs=6e-6) for name, own in names.items()}
    assert 0 < theirs["mAP@5"] < 1


def test_a_task_holds_ids_pictures_and_what_each_query_may_find(
    shop: list[str], tmp_path: Path
) -> None:
    mteb_command(typed("mteb", *shop, f"out={tmp_path / 'task'}"))
    (data,) = (tmp_path / "task").glob("data-*")
    read = {path.parent.name: parquet.read_table(path) for path in data.glob("*/*.parquet")}
    assert set(read) == {"corpus", "queries", "qrels", "top_ranked"}
    ids = read["queries"]["id"].to_pylist()
    assert all(name.startswith("é ") for name in ids)
    sender = {name: int(name[2:]) % 10 for name in ids}
    for row in read["top_ranked"].to_pylist():
        others = {name for name in ids if sender[name] != sender[row["query-id"]]}
        assert set(row["corpus-ids"]) == others
    assert all(sender[row["query-id"]] != sender[row["corpus-id"]]
               for row in read["qrels"].to_pylist())  # fmt: skip
    with pytest.raises(ConfigError, match="holds something already"):
        mteb_command(typed("mteb", *shop, f"out={tmp_path / 'task'}"))
    with pytest.raises(ConfigError, match="give data=folder"):
        mteb_command(typed("mteb", f"out={tmp_path / 'new'}"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["task"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "said"),
    [("mteb/baseline-random-cross-encoder", "no embeddings of pictures"),
     ("BAAI/bge-small-en", r"pictures \(it takes text\)")],
)  # fmt: skip
def test_a_model_that_embeds_no_pictures_is_refused_by_name(
    model: str, said: str, shop: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("mteb", reason="the extra 'mteb' is not installed")
    asked = [*shop, "embedder=mteb", f"embedder.model={model}", f"outputs={tmp_path}"]
    with pytest.raises(ConfigError, match=said):
        measure_from_outside(typed("evaluate", *asked))
