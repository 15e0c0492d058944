"""From Python: the same runs, searches and measurements as by the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import visual_search as vs
from tests.conftest import cache_of
from tests.small_runs import small
from visual_search.catalog.images import PictureError
from visual_search.config.builders import ConfigError
from visual_search.runs.run import Run

DATA = ("data=synthetic", "data.items_per_category=24", "data.categories=[Dresses,Shoes,Hats]",
        "split.val_fraction=0.2", "split.test_fraction=0.2")  # fmt: skip


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mean_colour(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture).mean(axis=(0, 1)) for picture in pictures])


def test_importing_the_package_loads_nothing_and_commands_can_be_called() -> None:
    code = "import sys, visual_search as vs; before = set(sys.modules); assert vs.train; "
    code += "import visual_search.train, visual_search.evaluate; assert callable(vs.train); "
    code += "assert callable(vs.evaluate); assert vs.train.main; "
    code += "heavy = {'numpy', 'torch', 'hydra', 'pandas'}; assert not heavy & before; "
    code += "assert not {'torch', 'pandas'} & set(sys.modules); assert len(vs.__all__) == 9; "
    code += "assert all(getattr(vs, name) for name in vs.__all__)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        vs.trian  # noqa: B018


def test_a_run_embeds_pictures_as_its_index_holds_them(
    trained: Run, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = vs.open_run(trained.folder)
    assert run.summary == trained.summary()
    assert run.settings.model["width"] == 4
    assert run.standing in repr(run)
    assert "srcdoc" in run._repr_html_()
    assert len(run.per_query) == run.summary["num_queries"]
    assert set(run.per_category["category"]) == {"Dresses", "Shoes", "Hats"}

    catalog = vs.open_catalog(*small(there))
    items = pd.read_parquet(trained.folder / "embeddings" / "gallery.parquet")
    saved = np.load(trained.folder / "embeddings" / "gallery.npy")
    image_of = dict(zip(catalog.table["item_id"], catalog.table["image"], strict=True))
    arrays = [catalog.source.load(image_of[one]) for one in items["item_id"][:3]]
    Image.fromarray(arrays[0]).save("a.png")
    given = ["a.png", Path("a.png").read_bytes(), Image.fromarray(arrays[0]), *arrays]
    found = run.embed(given)
    assert (found.shape, found.dtype) == ((6, saved.shape[1]), np.float32)
    expected = saved[[0, 0, 0, 0, 1, 2]]
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(saved).max())
    assert run.embed([]).shape == (0, saved.shape[1])
    Path("broken.jpg").write_bytes(b"\xff\xd8\xff")
    for picture, error, message in (
        ("gone.jpg", FileNotFoundError, r"picture 1: no file at gone\.jpg"),
        ("broken.jpg", PictureError, r"broken\.jpg: "),
        (3, TypeError, "picture 1 is of int; expected a path"),
    ):
        with pytest.raises(error, match=message):
            run.embed(["a.png", picture])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="got one picture"):
        run.embed("a.png")
    with pytest.raises(ConfigError, match="no run's folder"):
        vs.open_run(there)


def test_training_finds_the_finished_run(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    given = yaml.safe_load((trained.folder / "config.yaml").read_text())
    head = [
        f"embedding.{name}={given['embedding'][name]}" for name in ("pca", "normalize", "whiten")
    ]
    run = vs.train(*small(trained.folder.parents[2], *head))
    assert run.folder == trained.folder
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"did you mean 'loader\.batch_size'"):
        vs.train("loader.batchsize=3")


def test_any_callable_is_measured_with_intervals_and_floors(
    trained: Run, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = vs.open_catalog(*DATA, "data.image_size_px=32")
    cache = [cache_of(trained), "pictures.size_px=32"]
    report = vs.evaluate(mean_colour, catalog, *cache)
    assert report.folder.parts[:2] == ("outputs", "mean_colour")
    summary = report.summary
    assert summary["embedding_dim"] == 3
    assert 0 <= summary["intervals"]["micro"]["low"] <= summary["micro_map_at_5"]
    assert len(summary["floors"]) == 8
    assert report.standing.startswith("mAP@5 ")

    rows = mean_colour([Image.fromarray(catalog.source.load(i)) for i in catalog.table["image"]])
    again = vs.evaluate(rows, catalog, *cache, "floors=false", name="rows")
    assert again.summary["micro_map_at_5"] == summary["micro_map_at_5"]
    assert again.folder.parts[1] == "rows"

    def as_tensor(pictures: list[Image.Image]) -> torch.Tensor:
        return torch.from_numpy(mean_colour(pictures)).requires_grad_()

    graded = vs.evaluate(as_tensor, catalog, *cache, "floors=false", protocol="leave_one_out")
    assert graded.summary["identity"]["protocol_name"] == "leave_one_out"

    paths = []
    for number, image in enumerate(catalog.table["image"]):
        paths.append(there / f"{number}.png")
        Image.fromarray(catalog.source.load(image)).save(paths[-1])
    table = catalog.table[["item_id", "category", "group", "split"]].assign(image=paths)
    split = [
        "split=stratified",
        "split.val_fraction=0.2",
        "split.test_fraction=0.2",
        "floors=false",
    ]
    filed = vs.evaluate(rows, table.drop(columns="split"), *cache, *split, name="table")
    assert filed.summary["micro_map_at_5"] == summary["micro_map_at_5"]

    for values, items, message in (
        (rows[1:], catalog, r"shape \(71, 3\); expected \[72, D\]"),
        (np.full_like(rows, np.nan), catalog, "is not finite"),
        (lambda pictures: np.full((len(pictures), 3), 1e39), catalog, "is not finite"),
        (lambda pictures: np.zeros(3), catalog, r"makes \(3,\); expected \["),
        (rows, table.drop(columns="image"), r"lack the column\(s\) \['image'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            vs.evaluate(values, items, *cache, "floors=false")
    capsys.readouterr()


@pytest.mark.slow
def test_a_bundle_answers_as_the_command_does(trained: Run, there: Path) -> None:
    made = vs.open_run(trained.folder).export("shop", "index=flat", cache_of(trained))
    bundle = vs.open_bundle("shop")
    assert "shop" in repr(bundle)
    assert len(made) == len(bundle)
    catalog = vs.open_catalog(*DATA, "data.image_size_px=32")
    own = bundle.bundle.item_ids(limit=1)[0]
    (image,) = catalog.table.loc[catalog.table["item_id"] == own, "image"]
    picture = Image.fromarray(catalog.source.load(image))
    hits = bundle.search(picture, k=3)
    assert (hits[0].rank, hits[0].item_id, len(hits)) == (1, own, 3)
    others = bundle.similar(own, k=4, where={"category": "Shoes"})
    assert {hit.category for hit in others} == {"Shoes"}
    assert own not in {hit.item_id for hit in others}
    assert [(hit.product, hit.pictures) for hit in hits] == [(hit.item_id, ()) for hit in hits]
    for products in ("mean", "all"):
        assert bundle.search(picture, k=3, products=products) == hits
        assert len(bundle.similar(own, k=4, products=products)) == 4
    both = bundle.search(picture, k=50, where={"category": ["Shoes", "Hats"]})
    assert {hit.category for hit in both} == {"Shoes", "Hats"}
    with pytest.raises(PictureError, match="the picture: "):
        bundle.search(b"no picture")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        vs.open_bundle("nowhere")
