"""From a finished run to a bundle, and from the bundle to answers: as its commands do it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.composing import typed
from tests.conftest import cache_of
from tests.small_runs import BARE, QUICK, SIZE, SYNTHETIC, places
from visual_search.bundle.bundle import Bundle
from visual_search.config.builders import ConfigError
from visual_search.export import Exported, export_run, print_export
from visual_search.index import change_bundle, print_changed
from visual_search.models import exporting
from visual_search.runs.run import Run
from visual_search.search import print_search, search_bundle
from visual_search.train import train
from visual_search.wording import three_digits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a fitted head, a descriptor and mirrored pictures, on 72 drawn items."""
    own = ("experiment=best_unsupervised", "embedding.pca=8", "embedding.beside_pca=6",
           "partners.num_neighbours=2", "trainer.max_epochs=1", "model.width=4",
           "trainer.precision=32-true")  # fmt: skip
    folder = places(tmp_path_factory.mktemp("run"))
    return train(typed("train", *SYNTHETIC, *QUICK, *SIZE, *BARE, *folder, *own))


def asked(run: Run, out: Path, *more: str) -> Any:
    own = [f"run={run.folder}", f"out={out}", cache_of(run), "num_threads=1"]
    return typed("export", *own, *more)


@pytest.fixture(scope="module", autouse=True)
def written_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A later export takes the network that the first one has written: the run is the same."""
    kept, write = tmp_path_factory.mktemp("encoder"), exporting.export_encoder
    first: list[Any] = []

    def export_encoder(model: Any, head: Any, folder: Path, **more: Any) -> Any:
        if not first:
            first.append(write(model, head, kept, **more))
        return first[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "export_encoder", export_encoder)
        yield


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_run(asked(run, tmp_path_factory.mktemp("out") / "shop", "name=shop", "items=all"))


@pytest.fixture
def bundle(exported: Exported, tmp_path: Path) -> Path:
    """The bundle's folder, to be changed."""
    return Path(shutil.copytree(exported.folder, tmp_path / "shop"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "new one.png"
    noise = np.random.default_rng(3).integers(0, 256, (50, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def search(folder: Path, *more: str) -> Any:
    return search_bundle(typed("search", f"bundle={folder}", "num_threads=1", *more))


def change(action: str, folder: Path, *more: str) -> Any:
    return change_bundle(
        typed("index", f"action={action}", f"bundle={folder}", "num_threads=1", *more)
    )


def test_a_bundle_names_no_place(run: Run, exported: Exported) -> None:
    files = [path for path in exported.folder.rglob("*") if path.is_file()]
    assert files
    places = [str(run.folder.parents[2]), str(exported.folder.parent), str(Path.cwd())]
    for path in files:
        assert not [place for place in places if place.encode() in path.read_bytes()], path


def test_a_bundle_holds_the_whole_catalogue_and_says_what_was_measured(
    run: Run, exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Bundle.open(exported.folder)
    table = pd.read_parquet(run.folder / "embeddings" / "gallery.parquet")
    assert len(bundle) == 72
    assert set(table["item_id"]) < set(bundle.item_ids())
    assert bundle.name == "shop"
    assert set(bundle.columns) > {"category"}
    facts, summary = bundle.manifest.facts, run.summary()
    assert facts["weights"] == summary["weights"]
    assert facts["intervals"] == summary["intervals"]
    assert facts["export_check"]["largest_difference"] <= 1e-4
    assert exported.again == facts["measured_again"]
    assert exported.again == pytest.approx(summary["micro_map_at_5"], abs=1e-6)
    card = bundle.file("model_card.md").read_text(encoding="utf-8")
    assert f"{summary['micro_map_at_5']:.3f}" in card
    assert summary["definitions"]["map_at_5"] in card
    needed = bundle.file("requirements.txt").read_text(encoding="utf-8")
    assert "onnxruntime==" in needed
    assert "torch" not in needed.lower().replace("without pytorch", "")
    assert "faiss-cpu==" in needed
    (wheel,) = exported.folder.glob("*.whl")
    assert bundle.file(wheel.name) == wheel
    _, version, _ = wheel.name.split("-", 2)
    assert f"visual-search=={version}" in needed.splitlines()
    print_export(exported)
    printed = capsys.readouterr().out
    assert f"bundle={exported.folder}" in printed
    assert "off from PyTorch by at most" in printed


def test_the_embeddings_of_a_bundle_are_the_runs(run: Run, exported: Exported) -> None:
    bundle = Bundle.open(exported.folder)
    own = np.load(run.folder / "embeddings" / "gallery.npy")
    ids = pd.read_parquet(run.folder / "embeddings" / "gallery.parquet")["item_id"]
    again = np.stack([bundle.embedding_of(item_id) for item_id in ids])
    np.testing.assert_allclose(again, own, atol=1e-4)


def test_a_gallery_alone_or_another_catalogue_can_be_exported(
    run: Run, tmp_path: Path, picture: Path
) -> None:
    seen = export_run(asked(run, tmp_path / "seen"))
    assert run.summary()["num_gallery"] < seen.manifest.num_rows < 72
    assert seen.again == pytest.approx(run.summary()["micro_map_at_5"], abs=1e-6)
    gallery = export_run(asked(run, tmp_path / "gallery", "items=gallery", "index=hnsw"))
    assert gallery.manifest.num_rows == run.summary()["num_gallery"]
    assert gallery.manifest.index.plan["kind"] == "hnsw"
    assert gallery.again is None
    for category in ("a", "b"):
        (tmp_path / "photos" / category).mkdir(parents=True)
        shutil.copy(picture, tmp_path / "photos" / category / f"{category}.png")
    with Image.open(picture) as image:
        image.rotate(90).save(tmp_path / "photos" / "b" / "b.png")
    more = ["data=folder", f"data.root={tmp_path / 'photos'}", "num_checked=2"]
    other = export_run(asked(run, tmp_path / "other", *more))
    assert Bundle.open(other.folder).item_ids() == ["a/a.png", "b/b.png"]
    with pytest.raises(ConfigError, match="items=gallery with data of its own"):
        export_run(asked(run, tmp_path / "third", "items=gallery", *more))


def test_wrong_settings_of_an_export_are_refused(run: Run, exported: Exported) -> None:
    with pytest.raises(FileExistsError, match="is not empty; expected a new folder"):
        export_run(asked(run, exported.folder))
    with pytest.raises(ConfigError, match="items=some; expected one of seen, all, gallery"):
        export_run(asked(run, exported.folder.parent / "x", "items=some"))
    with pytest.raises(ConfigError, match="no run is named"):
        export_run(typed("export"))


def test_what_an_index_cannot_be_is_refused_before_anything_is_embedded(
    run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "visual_search.bundle.encoder.embed_rows", lambda *_: pytest.fail("embedded")
    )
    for override, message in (
        ("index=tree", "index=tree; expected one of flat, .*: set index=auto"),
        ("index=lancedb", "is a vector database, .*: leave index out, then .*index push"),
        ("target_recall=2", "target_recall is 2.0; expected a share"),
        ("num_threads=0", "num_threads=0; expected at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_run(asked(run, tmp_path / "x", override))
        with pytest.raises(ConfigError, match=message):
            change("rebuild", bundle, override)
    for override in ("thumbnail_px=0", "num_checked=0"):
        with pytest.raises(ConfigError, match=f"{override}; expected at least 1"):
            export_run(asked(run, tmp_path / "x", override))
    assert not (tmp_path / "x").exists()


def test_a_search_finds_an_added_picture_first_and_forgets_a_removed_one(
    bundle: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = change("add", bundle, f"image='{picture}'", "item=sku-9", "category=Hats")
    numbered = change("add", bundle, f"image='{picture}'", "item=12345", "category=Hats")
    assert numbered.change.num_items == 74
    assert change("remove", bundle, "item=12345").change.num_removed == 1
    assert (added.change.num_added, added.change.num_items) == (1, 73)
    grid = tmp_path / "grid.png"
    settings = typed(
        "search", f"bundle={bundle}", f"image='{picture}'", "k=3", f"out={grid}", "format=json"
    )
    print_search(search_bundle(settings), settings)
    answer = json.loads(capsys.readouterr().out)
    first = answer["answers"][0]["hits"][0]
    assert (first["item_id"], first["category"], first["rank"]) == ("sku-9", "Hats", 1)
    assert first["squared_distance"] < 1e-6
    assert [len(one["hits"]) for one in answer["answers"]] == [3]
    assert answer["grid"] == str(grid)
    with Image.open(grid) as image:
        assert image.width > 600

    removed = change("remove", bundle, "item=sku-9")
    assert removed.change.num_removed == 1
    found = search(bundle, f"image='{picture}'", "k=3").answers[0].hits
    assert "sku-9" not in [hit.item_id for hit in found]
    print_changed(removed)
    assert "1 removed." in capsys.readouterr().out


def test_a_catalogue_is_added_and_replaces_what_it_names_again(
    bundle: Path, tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos" / "Gloves"
    folder.mkdir(parents=True)
    shutil.copy(picture, folder / "one.png")
    (folder / "two.png").write_bytes(b"<html>")
    more = ("data=folder", f"data.root={folder.parent}", "data.on_bad_item=skip")
    cache = f"pictures.cache_dir={tmp_path / 'cache'}"
    print_changed(change("add", bundle, *more, cache))
    printed = capsys.readouterr().out
    assert "1 added." in printed
    assert "Categories that no item had before: Gloves\n" in printed
    assert "Gloves/two.png" in printed
    with Image.open(picture) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "one.png")
    again = change("add", bundle, *more, cache)
    assert (again.change.num_added, again.change.num_replaced) == (0, 1)
    assert again.new_categories == ()
    assert Bundle.open(bundle).values_of("category")["Gloves"] == 1
    hits = search(bundle, f"image={folder / 'one.png'}", "k=1").answers[0].hits
    assert hits[0].item_id == "Gloves/one.png"
    assert hits[0].squared_distance < 1e-6


def test_a_rebuild_keeps_the_answers_and_info_tells(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item_id = Bundle.open(bundle).item_ids()[0]
    before = search(bundle, f"item='{item_id}'").answers[0].hits
    assert item_id not in [hit.item_id for hit in before]
    rebuilt = change("rebuild", bundle, "index=hnsw")
    assert rebuilt.change.plan.kind == "hnsw"
    assert search(bundle, f"item='{item_id}'").answers[0].hits == before
    print_changed(change("info", bundle))
    printed = capsys.readouterr().out
    assert "72 items in 3 categories; index hnsw" in printed
    assert "Dresses: 24" in printed


def test_a_narrow_table_still_says_which_item_how_far(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(bundle)
    item_id = opened.item_ids()[0]
    settings = typed("search", f"bundle={bundle}", f"item='{item_id}'", "k=2")
    for width, header in ((60, "colour ·"), (160, opened.columns[-1])):
        monkeypatch.setenv("COLUMNS", str(width))
        searched = search_bundle(settings)
        print_search(searched, settings)
        printed = capsys.readouterr().out
        assert header in printed
        for hit in searched.answers[0].hits:
            assert three_digits(hit.squared_distance) in printed
            assert hit.item_id in printed
            assert hit.category in printed
        assert max(map(len, printed.splitlines()[:8])) <= width


def test_filters_hold_and_name_what_they_do_not_know(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    item_id = opened.item_ids()[0]
    column = opened.columns[1]
    value = next(iter(opened.values_of(column)))
    hits = search(bundle, f"item='{item_id}'", "k=40", f"where={{{column}: '{value}'}}")
    assert {hit.attributes[column] for hit in hits.answers[0].hits} == {value}
    assert len(hits.answers[0].hits) == min(
        40, opened.count({column: [value]}) - (opened.item(item_id)[column] == value)
    )
    both = search(bundle, f"item='{item_id}'", "k=60", "category=[Shoes,Hats]").answers[0].hits
    assert {hit.category for hit in both} == {"Shoes", "Hats"}
    with pytest.raises(ConfigError, match=r"no item has the category 'Shoe'.* mean 'Shoes'"):
        search(bundle, f"item='{item_id}'", "category=Shoe")
    with pytest.raises(ConfigError, match="where names the column 'maker'; expected one of"):
        search(bundle, f"item='{item_id}'", "where={maker: x}")
    with pytest.raises(ConfigError, match="where=red: expected columns"):
        search(bundle, f"item='{item_id}'", "where=red")


def test_what_a_search_or_change_lacks_is_said(bundle: Path, tmp_path: Path, picture: Path) -> None:
    for overrides, message in (
        ([], "nothing to search for; expected image=PICTURE"),
        (["item=nobody"], "no item 'nobody' in .* of its 72 items, such as"),
        (["item=nobody", "format=xml"], "format=xml; expected one of table, json"),
        (["item=nobody", "k=0"], "k=0; expected at least 1"),
        (["item=nobody", "out=a/grid.jpg"], "ends with .png, .*: set out=a/grid.png"),
        (["item=nobody", "out=."], "out=.; expected a name that ends with .png, .*out=grid.png"),
    ):
        with pytest.raises(ConfigError, match=message):
            search(bundle, *overrides)
    with pytest.raises(ConfigError, match="no bundle is named; expected bundle=DIR"):
        search_bundle(typed("search"))
    with pytest.raises(FileNotFoundError, match="no picture at"):
        search(bundle, f"image={tmp_path / 'gone.jpg'}")
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"page.jpg: not a picture"):
        search(bundle, f"image={tmp_path / 'page.jpg'}")
    with pytest.raises(ValueError, match=r"page.jpg: not a picture"):
        change("add", bundle, f"image={tmp_path / 'page.jpg'}", "item=x", "category=Hats")
    for action, overrides, message in (
        ("delete", [], "got the action 'delete'; expected one of add, remove, rebuild, info"),
        ("remove", [], "nothing to remove; expected item=ID"),
        ("remove", ["item=nobody"], "has no item 'nobody'"),
        ("add", [], "add needs either a catalogue or one picture"),
        ("add", [f"image='{picture}'"], "needs one item=ID and a category=NAME"),
        (
            "add",
            [f"image='{picture}'", "item=x", "category=y", "attributes={maker: z}"],
            "the bundle has no column 'maker'",
        ),
        (
            "add",
            [f"image='{picture}'", "item=x", "category=y", "attributes={category: z}"],
            "category, as 'z'; .* category=NAME",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            change(action, bundle, *overrides)
    ids = tmp_path / "ids.txt"
    with pytest.raises(FileNotFoundError, match="expected one item id a line"):
        change("remove", bundle, f"ids={ids}")
    first, second = Bundle.open(bundle).item_ids(limit=2)
    ids.write_text(f"{first}\n\n{second}\n", encoding="utf-8")
    assert change("remove", bundle, f"ids={ids}").change.num_removed == 2
    with pytest.raises(ConfigError, match="pass over them with skip_missing=true"):
        change("remove", bundle, f"ids={ids}")
    assert change("remove", bundle, f"ids={ids}", "skip_missing=true").change.num_removed == 0


def test_a_search_needs_no_torch(bundle: Path, picture: Path, tmp_path: Path) -> None:
    arguments = [f"bundle={bundle}", f"image='{picture}'", f"out={tmp_path / 'grid.png'}"]
    program = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(',')))\n"
        "from visual_search.search import main; main()"
    )
    lacking = "torch,lightning,pandas,matplotlib"
    ended = subprocess.run(
        [sys.executable, "-c", program, lacking, *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "Like new one.png\n" in ended.stdout


def test_products_of_several_pictures_go_from_a_table_to_one_hit_each(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    for number in range(8):
        noise = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    ids = ["007", "007~2", "1.10", "1.10~2", "1.10~3", "bag"]
    table = pd.DataFrame({
        "item_id": ids, "image": [f"{number}.png" for number in range(6)],
        "category": ["Shoes", "Shoes", "Hats", "Hats", "Hats", "Bags"],
        "product": [one.partition("~")[0] for one in ids], "colour": ["red", "red", *["blue"] * 4],
    })  # fmt: skip
    table.to_csv(tmp_path / "shop.csv", index=False)
    data = ("data=table", "data.attributes=[product,colour]", "num_checked=2")
    made = export_run(asked(run, tmp_path / "shop", *data, f"data.path={tmp_path / 'shop.csv'}"))
    assert (made.num_products, made.manifest.num_items) == (3, 6)
    print_export(made)
    assert "3 products with 6 pictures" in capsys.readouterr().out
    card = Bundle.open(made.folder).file("model_card.md").read_text(encoding="utf-8")
    assert "3 products with 6 pictures" in card

    folder, asks = made.folder, f"image={tmp_path / '4.png'}"
    settings = typed("search", f"bundle={folder}", asks, f"out={tmp_path / 'g.png'}", "format=json")
    print_search(search_bundle(settings), settings)
    hits = json.loads(capsys.readouterr().out)["answers"][0]["hits"]
    assert hits[0]["product"] == "1.10"
    assert {hit["product"] for hit in hits} == {"007", "1.10", "bag"}
    assert (hits[0]["item_id"], hits[0]["pictures"]) == ("1.10~3", ["1.10", "1.10~2"])
    every = search(folder, asks, "products=all", "k=9").answers[0].hits
    assert {hit.item_id for hit in every} == set(ids)
    own = search(folder, "item=1.10~2", "products=mean").answers[0].hits
    assert {hit.product for hit in own} == {"007", "bag"}
    settings = typed("search", f"bundle={folder}", asks)
    print_search(search_bundle(settings), settings)
    printed = capsys.readouterr().out
    assert "1.10~3" in printed
    assert "1.10, 1.10~2" in printed
    assert "No more than 3 products match." in printed
    with pytest.raises(ConfigError, match="products=worst; expected one of best, mean, all"):
        search(folder, asks, "products=worst")

    added = change("add", folder, f"image={tmp_path / '6.png'}", "product=007")
    print_changed(added)
    assert "1 picture added." in capsys.readouterr().out
    bundle = Bundle.open(folder)
    assert bundle.pictures_of("007") == ["007", "007~2", "007~3"]
    assert bundle.item("007~3") == {
        "item_id": "007~3", "category": "Shoes", "product": "007", "colour": "red",
    }  # fmt: skip
    more = table.iloc[[0, 5]].assign(
        item_id=["front", "front2"], image=["6.png", "7.png"], product=["bag", "boot"]
    )
    more.to_csv(tmp_path / "more.csv", index=False)
    cache = f"pictures.cache_dir={tmp_path / 'cache'}"
    path = f"data.path={tmp_path / 'more.csv'}"
    print_changed(change("add", folder, *data[:2], path, cache))
    printed = capsys.readouterr().out
    assert "2 pictures added, 1 new product." in printed
    assert "4 products with 9 pictures in 3 categories" in printed
    assert Bundle.open(folder).pictures_of("bag") == ["bag", "bag~2"]
    for overrides, message in (
        (["product=cap"], "product=ID of a product that is there"),
        (["product=007", "attributes={product: 007}"], "product, as '007'; .* product=ID"),
        (["product=[007,bag]"], "expected one product of the one picture"),
    ):
        with pytest.raises(ConfigError, match=message):
            change("add", folder, f"image={tmp_path / '6.png'}", *overrides)
    with pytest.raises(ConfigError, match="product=007 with data of its own"):
        change("add", folder, *data[:2], path, "product=007")

    for number, name in enumerate(("p1/a", "p1/b", "p2/c")):  # too few to tell by themselves
        path = tmp_path / "more" / "Hats" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / f"{number}.png", path)
    root = f"data.root={tmp_path / 'more'}"
    assert change("add", folder, "data=folder", root, cache).change.num_products_added == 2
    assert Bundle.open(folder).pictures_of("Hats/p1") == ["Hats/p1", "Hats/p1~2"]
    assert "data.products=true (so are" in capsys.readouterr().out
    assert change("remove", folder, "product=[Hats/p1,Hats/p2]").change.num_removed == 3

    print_changed(change("remove", folder, "product=1.10", "item=007"))
    printed = capsys.readouterr().out
    assert "4 pictures removed, 1 product with the last of them" in printed
    assert "3 products with 5 pictures" in printed
    assert Bundle.open(folder).pictures_of("007") == ["007~2", "007~3"]
    with pytest.raises(ConfigError, match=r"no product '1\.10'"):
        change("remove", folder, "product=1.10")


def test_a_column_called_product_may_be_any_attribute(
    run: Run, bundle: Path, tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(picture, tmp_path / "a.png")
    table = pd.DataFrame({
        "item_id": ["1", "2"], "image": ["a.png"] * 2, "category": "Shoes", "product": "Air",
    })  # fmt: skip
    table.to_csv(tmp_path / "lines.csv", index=False)
    data = ("data=table", "data.attributes=[product]", f"data.path={tmp_path / 'lines.csv'}")
    made = export_run(asked(run, tmp_path / "lines", *data, "num_checked=2"))
    assert (made.num_products, made.manifest.product_column) == (None, None)
    hits = search(made.folder, f"image='{picture}'", "where={product: Air}").answers[0].hits
    assert [hit.item_id for hit in hits] == ["1", "2"]
    with pytest.raises(ConfigError, match="product=Air, and every item"):
        change("add", made.folder, f"image='{picture}'", "product=Air", "category=Shoes")
    assert change("remove", made.folder, "product=2").change.num_removed == 1
    # pictures of products, into a bundle of items: said, and found one by one
    table.assign(item_id=["7", "7~2"], product="7").to_csv(tmp_path / "lines.csv", index=False)
    print_changed(change("add", bundle, *data, f"pictures.cache_dir={tmp_path / 'cache'}"))
    assert "1 further picture of products" in capsys.readouterr().out
