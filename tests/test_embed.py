"""Embedding a catalogue in shards: what is written, gone on with, refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.bundle.uploads import asked_for, upload
from tests.composing import typed
from tests.conftest import cache_of
from tests.storage.s3_server import SECRET, S3Server
from visual_search import embed, index
from visual_search.catalog.catalog import BadItemsError
from visual_search.catalog.readers import row_blocks
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import EmbedLoader
from visual_search.embed import EmbeddedCatalog, embed_catalog, print_embedded
from visual_search.export import export_run
from visual_search.runs.embedding_shards import read_shard_manifest, read_shards
from visual_search.runs.run import Run, RunLockedError
from visual_search.storage import bucket

pytestmark = pytest.mark.slow


def asked(run: Run, out: Path, *more: str) -> Any:
    return typed(
        "embed",
        f"run={run.folder}",
        f"out={out}",
        "shard_size=20",
        "trainer.accelerator=cpu",
        *more,
    )


def embedded(run: Run, out: Path, *more: str) -> EmbeddedCatalog:
    found = embed_catalog(asked(run, out, *more))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def whole(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> EmbeddedCatalog:
    return embedded(trained, tmp_path_factory.mktemp("out") / "whole")


def read(folder: Path) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    tables, arrays = zip(*read_shards(folder), strict=True)
    return pd.concat(tables, ignore_index=True), np.concatenate(arrays)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "shards").iterdir())}


@pytest.fixture
def begun(whole: EmbeddedCatalog, tmp_path: Path) -> Path:
    """A copy of the finished folder, to be spoilt."""
    return Path(shutil.copytree(whole.folder, tmp_path / "begun"))


def test_every_item_of_the_runs_catalogue_has_the_embedding_that_the_run_gave_it(
    trained: Run, whole: EmbeddedCatalog
) -> None:
    table, embeddings = read(whole.folder)
    assert len(table) == len(set(table["item_id"])) == 72  # the run itself was limited to fewer
    known = pd.read_parquet(trained.folder / "embeddings" / "gallery.parquet")
    saved = np.load(trained.folder / "embeddings" / "gallery.npy")
    row_of = {item_id: row for row, item_id in enumerate(table["item_id"])}
    rows = [row_of[item_id] for item_id in known["item_id"]]
    assert 0 < len(rows) < 72
    np.testing.assert_allclose(embeddings[rows], saved, atol=2e-3)
    assert table["content_key"].iloc[rows].tolist() == known["content_key"].tolist()
    assert table["split"].iloc[rows].tolist() == known["split"].tolist()


def test_a_shard_is_plain_parquet(whole: EmbeddedCatalog) -> None:
    files = sorted((whole.folder / "shards").iterdir())
    assert [pq.read_metadata(file).num_rows for file in files] == [20, 20, 20, 12]
    schema = pq.read_schema(files[0])
    assert schema.field("embedding").type == pa.list_(pa.float32(), 8)
    texts = [name for name in schema.names if name != "embedding"]
    assert texts[:5] == ["item_id", "image", "category", "group", "split"]
    assert texts[-1] == "content_key"
    assert len(texts) > 6  # attributes between them
    assert {schema.field(name).type for name in texts} == {pa.string()}
    assert pq.ParquetFile(files[0]).metadata.row_group(0).column(0).compression == "ZSTD"
    assert len(pd.read_parquet(whole.folder / "shards")) == 72  # as a folder of shards alone


def test_the_manifest_says_what_it_is(trained: Run, whole: EmbeddedCatalog) -> None:
    assert sorted(path.name for path in whole.folder.iterdir()) == [
        ".lock",
        "finished",
        "manifest.json",
        "settings.json",
        "shards",
    ]  # the listing is gone
    manifest = json.loads((whole.folder / "manifest.json").read_text(encoding="utf-8"))
    index = json.loads((trained.folder / "index" / "manifest.json").read_text(encoding="utf-8"))
    for name in ("model_hash", "embedding_hash", "preprocessing_hash"):
        assert manifest[name] == index[name]
    assert (manifest["num_items"], manifest["dim"], manifest["refused"]) == (72, 8, [])
    assert manifest["run"] == f"plain_encoder/{trained.folder.name}"
    assert [shard["first_row"] for shard in manifest["shards"]] == [0, 20, 40, 60]
    assert manifest["precision"] == trained.summary()["precision"]


def test_the_same_again_writes_nothing_wherever_the_run_lies(
    trained: Run, whole: EmbeddedCatalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((whole.folder / "shards").iterdir())
    before = shards(whole.folder), [path.stat().st_mtime_ns for path in files]
    moved = Run(Path(shutil.copytree(trained.folder, tmp_path / "moved")))
    again = embedded(moved, whole.folder)
    assert again.num_written == 0
    assert (shards(whole.folder), [path.stat().st_mtime_ns for path in files]) == before
    print_embedded(again)
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("72 items of synthetic, 8 numbers each, in 4 shards: ")
    assert said.endswith("manifest.json (4 were there before)")


def test_the_command_writes_to_object_storage_and_goes_on_once_it_answers(
    trained: Run, whole: EmbeddedCatalog, s3: S3Server, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    s3.put("command", {})
    monkeypatch.setattr(bucket, "ATTEMPTS", 2)
    monkeypatch.chdir(tmp_path)

    def status_of(command: Callable[[], None], *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["command", *words])
        status = 0
        try:
            command()
        except SystemExit as end:
            status = int(str(end.code))
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err
        return status, " ".join(said.out.split()), " ".join(said.err.split())

    def embed_there(out: str) -> tuple[int, str, str]:
        words = [f"run={trained.folder}", f"out={out}", "shard_size=20", "trainer.accelerator=cpu"]
        return status_of(embed.main, *words)

    third = "/shards/00002.parquet"
    with s3.disturbed(lambda method, path, before: "busy" if path.endswith(third) else None):
        status, _, said = embed_there("s3://command/embedded")
    assert status == 1
    assert f"error: s3://command/embedded{third} cannot be written: " in said
    status, said, _ = embed_there("s3://command/embedded/")
    assert status == 0
    assert "Finished: 2 of 4 shards; going on with 00002." in said
    assert said.endswith("4 shards: s3://command/embedded/manifest.json (2 were there before)")
    found = s3.objects("command")
    assert {Path(key).name: data for key, data in found.items() if "/shards/" in key} == shards(
        whole.folder
    )
    assert read_shard_manifest("s3://command/embedded")["shards"] == whole.manifest["shards"]
    assert not [key for key, data in found.items() if SECRET.encode() in data]
    assert not [path for path in tmp_path.iterdir() if path.name != "copies"]

    status, _, said = embed_there(f"s3://key:{SECRET}@command/embedded")
    assert status == 2
    assert "expected s3://BUCKET/KEY alone" in said

    pytest.importorskip("lancedb", reason="the extra 'lancedb' is not installed")
    collection = ["from=s3://command/embedded", "to=lancedb", "url=products.lancedb"]
    assert status_of(index.main, "push", *collection)[1].endswith("It holds 72 items of 8 numbers.")
    assert status_of(index.main, "verify", *collection)[1].endswith("holds the same 72 items.")


def test_what_is_missing_or_damaged_is_written_again(
    trained: Run, whole: EmbeddedCatalog, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (begun / "manifest.json").unlink()
    (begun / "finished" / "00000.json").unlink()  # killed between the shard and its record
    (begun / "shards" / "00001.parquet").unlink()
    (begun / "finished" / "00001.json").write_text("{", encoding="utf-8")
    damaged = bytearray((begun / "shards" / "00003.parquet").read_bytes())
    damaged[100] ^= 1
    (begun / "shards" / "00003.parquet").write_bytes(damaged)
    again = embedded(trained, begun)
    assert again.num_written == 3
    assert shards(begun) == shards(whole.folder)
    assert "Finished: 1 of 4 shards; going on with 00000." in capsys.readouterr().out


def test_other_settings_in_the_same_folder_are_refused(trained: Run, begun: Path) -> None:
    before = shards(begun)
    with pytest.raises(ConfigError, match=r"other settings \(shard_size 20 there, 30 here\)"):
        embedded(trained, begun, "shard_size=30")
    own = trained.summary()["precision"]
    other = "bf16-mixed" if own == "32-true" else "32-true"
    with pytest.raises(ConfigError, match=rf"settings \(precision {own} there, {other} here\)"):
        embedded(trained, begun, f"trainer.precision={other}")
    more = "data.items_per_category=20"
    with pytest.raises(ConfigError, match=r"fingerprint \w+\.\.\. there.*num_items 72 there, 60"):
        embedded(trained, begun, f"+{more}")
    assert shards(begun) == before


def test_another_run_in_the_same_folder_is_refused(
    trained: Run, begun: Path, tmp_path: Path
) -> None:
    other = Run(Path(shutil.copytree(trained.folder, tmp_path / "other")))
    projection = other.folder / "embeddings" / "projection.npz"
    with np.load(projection) as kept:
        arrays = {name: kept[name].copy() for name in kept}
    np.savez(projection, **arrays | {"mean": arrays["mean"] + np.float32(1)})
    with pytest.raises(ConfigError, match=r"other settings \(embedding_hash \w{12}\.\.\. there"):
        embedded(other, begun)
    projection.unlink()
    with pytest.raises(FileNotFoundError, match="no projection"):
        embedded(other, begun)


def test_a_folder_with_something_else_is_refused(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"holds \['notes\.txt'\]"):
        embedded(trained, tmp_path)
    with pytest.raises(ConfigError, match="is the run's own folder; expected a new one"):
        embedded(trained, trained.folder)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_two_commands_at_once_are_refused(trained: Run, begun: Path) -> None:
    first = Run(begun)
    first.lock()
    try:
        with pytest.raises(RunLockedError, match="is in use by process"):
            embedded(trained, begun)
    finally:
        first.unlock()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"run": None},
            "neither run nor bundle is named; expected .* give run=PATH or bundle=",
        ),
        ({"bundle": "shop"}, "both are named"),
        ({"run": None, "bundle": "shop"}, "no data is named with bundle=shop"),
        ({"out": None}, "no folder is named for out; expected a new one: give out=PATH"),
        ({"shard_size": 0}, "shard_size=0; expected at least 1"),
        ({"loader": EmbedLoader(num_threads=0)}, r"loader\.num_threads=0; expected at least 1"),
        ({"run": "nowhere"}, "nowhere is no run's folder"),
    ],
)
def test_wrong_settings_are_refused(
    trained: Run, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        embed_catalog(dataclasses.replace(asked(trained, tmp_path / "out"), **change))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Another catalogue: 7 pictures, one of which is none."""
    numbers = np.random.default_rng(0)
    for number in range(6):
        folder = tmp_path / "pictures" / ("Bags", "Belts")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        values = numbers.integers(0, 255, (20, 20, 3), np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"<html>404</html>")
    return tmp_path / "pictures"


def test_broken_pictures_of_another_catalogue_follow_on_bad_item(
    trained: Run, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("data=folder", f"data.root={pictures}", "shard_size=4")
    with pytest.raises(BadItemsError, match=r"broken\.png"):
        embedded(trained, tmp_path / "out", *data)
    assert [path.name for path in (tmp_path / "out").glob("*/*.json")] == ["00000.json"]
    found = embedded(trained, tmp_path / "out", *data, "data.on_bad_item=skip")
    (refused,) = found.manifest["refused"]
    assert (refused["image"], found.num_written) == ("Belts/broken.png", 1)
    assert [shard["num_items"] for shard in found.manifest["shards"]] == [4, 2]
    table, embeddings = read(found.folder)
    assert sorted(table["category"]) == ["Bags"] * 3 + ["Belts"] * 3
    assert embeddings.shape == (6, 8)
    print_embedded(found)
    assert "(Belts/broken.png): " in " ".join(capsys.readouterr().out.split())


def test_a_picture_that_changes_later_is_embedded_where_its_shard_is_taken_away(
    trained: Run, pictures: Path, tmp_path: Path
) -> None:
    data = ("data=folder", f"data.root={pictures}", "shard_size=4", "data.on_bad_item=skip")
    before, _ = read(embedded(trained, tmp_path / "out", *data).folder)
    for name in ("Bags/0.png", "Belts/broken.png"):
        Image.new("RGB", (20, 20)).save(pictures / name)
    assert embedded(trained, tmp_path / "out", *data).num_written == 0  # nobody hashes pictures
    for shard in (tmp_path / "out" / "shards").iterdir():
        shard.unlink()
    again = embedded(trained, tmp_path / "out", *data)
    after, _ = read(again.folder)
    assert (again.num_written, len(before), len(after)) == (2, 6, 7)
    assert again.manifest["refused"] == []
    keys = [dict(zip(one["image"], one["content_key"], strict=True)) for one in (before, after)]
    assert [name for name in keys[0] if keys[0][name] != keys[1][name]] == ["Bags/0.png"]


def test_a_bundles_encoder_embeds_as_its_run_does(
    trained: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server
) -> None:
    shop = export_run(typed("export", f"run={trained.folder}", f"out={tmp_path / 'shop'}",
                            cache_of(trained), "num_checked=8"))  # fmt: skip
    data = ("data=folder", f"data.root={pictures}", "shard_size=4", "data.on_bad_item=skip")
    by_run, of_run = read(embedded(trained, tmp_path / "run", *data).folder)

    def by_bundle(*more: str, bundle: str = str(shop.folder)) -> EmbeddedCatalog:
        arguments = [f"bundle={bundle}", f"out={tmp_path / 'bundle'}", *data, *more]
        found = embed_catalog(typed("embed", *arguments))
        assert found is not None
        return found

    words = [f"bundle={shop.folder}", f"out={tmp_path / 'bundle'}", *data]
    alone = (
        "import runpy, sys; sys.modules |= dict.fromkeys(['torch', 'torchvision', 'lightning']);"
        f"sys.argv = ['embed', *{words!r}];"
        "runpy.run_module('visual_search.embed', run_name='__main__', alter_sys=True)"
    )
    subprocess.run([sys.executable, "-c", alone], check=True, capture_output=True)
    found = by_bundle()
    assert found.num_written == 0
    address = upload(s3, shop.folder, "embed-bundle")
    assert by_bundle(bundle=address).num_written == 0  # its shards are those that are there
    assert asked_for(s3) == {"bundle.json", "encoder.onnx"}
    table, embeddings = read(found.folder)
    pd.testing.assert_frame_equal(
        table.drop(columns="split"), by_run.drop(columns="split")
    )  # which the run drew
    np.testing.assert_allclose(embeddings, of_run, atol=2e-2)  # the run computes in bfloat16
    encoder = json.loads((shop.folder / "bundle.json").read_text())["encoder"]["sha256"]
    hashes = ("model_hash", "preprocessing_hash", "embedding_hash")
    assert {found.manifest[name] for name in hashes} == {encoder}  # type: ignore[literal-required]
    assert found.manifest["run"] == f"plain_encoder/{trained.folder.name}"
    for key, value in (("accelerator", "gpu"), ("precision", "bf16-mixed"), ("devices", "2")):
        with pytest.raises(ConfigError, match=rf"^trainer\.{key}={value}"):
            by_bundle(f"trainer.{key}={value}")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match="of a bundle was started in several processes"):
        by_bundle()


def test_a_table_that_is_read_in_parts_is_embedded_as_whole(
    trained: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("duckdb", reason="the extra 'duckdb' is not installed")
    (pictures / "Belts" / "broken.png").unlink()
    files = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    lines = [f"{n},{files[n % 6]},{files[n % 6][:4]}" for n in range(50)]
    path = pictures / "items.csv"
    path.write_text("\n".join(["item_id,image,category", *lines]), encoding="utf-8")
    data = ("data=table", f"data.path={path}", "shard_size=16")
    whole, expected = read(embedded(trained, tmp_path / "whole", *data).folder)
    monkeypatch.setattr(row_blocks, "LARGE_BYTES", 100)
    monkeypatch.setattr(row_blocks, "BLOCK_CHARACTERS", 200)
    table, embeddings = read(embedded(trained, tmp_path / "parts", *data).folder)
    assert set(table["split"]) == {""}  # nothing is drawn
    pd.testing.assert_frame_equal(table.drop(columns="split"), whole.drop(columns="split"))
    np.testing.assert_array_equal(embeddings, expected)
    with pytest.raises(ConfigError, match="split is set, and catalogue 'items' is read in parts"):
        embedded(trained, tmp_path / "split", *data, "split=hash")

    lines += ["3,Bags/0.png,Bags", "1000,Bags/0.png,Bags"]
    path.write_text("\n".join(["item_id,image,category", *lines]), encoding="utf-8")
    with pytest.raises(BadItemsError, match=r"'3' .*item 51: the id is that of item 4 already"):
        embedded(trained, tmp_path / "twice", *data)
    found = embedded(trained, tmp_path / "twice", *data, "data.on_bad_item=skip")
    assert (found.manifest["num_items"], len(found.manifest["refused"])) == (51, 1)
    assert read(found.folder)[0]["item_id"].iloc[-1] == "1000"


def test_a_catalogue_without_a_good_picture_is_refused(
    trained: Run, pictures: Path, tmp_path: Path
) -> None:
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"<html>404</html>")
    data = ("data=folder", f"data.root={pictures}", "data.on_bad_item=skip_any")
    with pytest.raises(ValueError, match=r"no item .* is left: all 7 pictures were refused"):
        embedded(trained, tmp_path / "out", *data)


def test_an_attribute_with_a_name_of_ours_is_refused(
    trained: Run, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "Belts" / "broken.png").unlink()
    files = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    lines = [f"{file},{file[:4]},x" for file in files]
    text = "\n".join(["image,category,embedding", *lines])
    (pictures / "items.csv").write_text(text, encoding="utf-8")
    data = ("data=table", f"data.path={pictures / 'items.csv'}", "data.item_id=image")
    with pytest.raises(ConfigError, match=r"has an attribute 'embedding'.*rename the column"):
        embedded(trained, tmp_path / "out", *data)
