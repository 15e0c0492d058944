"""A catalogue of small pictures and a small network: a whole run takes a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Callback, Trainer

from tests.models.networks import small_autoencoder
from visual_search.catalog.cache import CachedCatalog, cache_pictures
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers.sources import ArraySource
from visual_search.training.datamodule import CatalogDataModule
from visual_search.training.module import EncoderModule, Preprocessing
from visual_search.training.optimization import Optimization
from visual_search.training.trainer import build_trainer

NewModule = Callable[[], EncoderModule]
NewDatamodule = Callable[..., CatalogDataModule]
SIDE = 16
SPLITS = ["train"] * 40 + ["val"] * 9 + ["test"] * 9
CATEGORIES = ["Hats", "Shoes", "T-shirt/top"]


def coloured_pictures(cache_dir: Path) -> CachedCatalog:
    """58 pictures, each of its category's colour with noise on it."""
    rng = np.random.default_rng(0)
    number = np.arange(len(SPLITS))
    base = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])[number % 3]
    noise = rng.integers(-40, 40, (len(SPLITS), SIDE, SIDE, 3))
    arrays = (base[:, None, None, :] + noise).clip(0, 255).astype(np.uint8)
    names = [f"picture-{n:02d}" for n in number]
    table = pd.DataFrame(
        {
            "item_id": [f"item-{n:02d}" for n in number],
            "image": names,
            "category": [CATEGORIES[n % 3] for n in number],
            "group": [f"group-{n:02d}" for n in number],
            "split": SPLITS,
            "colour": ["red", "green", "blue"] * 19 + ["red"],
        }
    )
    catalog = Catalog("colours", table, ArraySource(arrays, names))
    return cache_pictures(
        catalog, size_px=SIDE, fit="stretch", cache_dir=cache_dir, on_bad_item="error"
    )


@pytest.fixture(scope="session")
def cached(tmp_path_factory: pytest.TempPathFactory) -> CachedCatalog:
    return coloured_pictures(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def new_module(cached: CachedCatalog) -> NewModule:
    """Returns modules that start from the same weights."""

    def build() -> EncoderModule:
        torch.manual_seed(1)
        return EncoderModule(
            small_autoencoder(),
            Preprocessing(SIDE, "stretch"),
            optimization=Optimization(learning_rate=1e-2),
            item_ids=list(cached.catalog.table["item_id"]),
        )

    return build


@pytest.fixture(scope="session")
def new_datamodule(cached: CachedCatalog) -> NewDatamodule:
    def build(num_workers: int = 0) -> CatalogDataModule:
        return CatalogDataModule(
            cached.catalog, cached.pictures, batch_size=10, num_workers=num_workers, seed=3
        )

    return build


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def trainer_in(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    """A quiet trainer on the CPU, in float32, for one epoch."""
    quiet = {"precision": "32-true", "enable_progress_bar": False, "max_epochs": 1}
    return build_trainer(folder=folder, accelerator="cpu", callbacks=callbacks, **quiet | settings)
