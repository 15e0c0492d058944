"""The LightningModule with its labels and optimiser: what it computes, refuses and keeps."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.conftest import NewDatamodule, NewModule, trainer_in
from visual_search.catalog.cache import CachedCatalog
from visual_search.catalog.catalog import Catalog
from visual_search.training.distributed import restore_num_threads
from visual_search.training.labels import Labels, label_values
from visual_search.training.module import (
    NonFiniteLossError,
    Preprocessing,
    to_network,
    to_pictures,
    weights_fingerprint,
)
from visual_search.training.optimization import Optimization


def test_every_pixel_value_survives_the_way_to_the_network_and_back() -> None:
    values = np.arange(256, dtype=np.uint8)
    pictures = np.broadcast_to(values[:, None, None, None], (256, 3, 2, 2)).copy()
    scaled = to_network(torch.from_numpy(pictures))
    assert (scaled.min(), scaled.max()) == (-1, 1)
    np.testing.assert_array_equal(to_pictures(scaled), pictures)


@pytest.mark.slow
def test_training_lowers_the_loss_which_is_a_mean_over_items_not_over_batches(
    new_module: NewModule, new_datamodule: NewDatamodule, cached: CachedCatalog
) -> None:
    module, datamodule, losses = new_module(), new_datamodule(), []
    pictures = to_network(torch.from_numpy(cached.pictures[datamodule.rows("val")]))
    for epochs in (0, 5):
        trainer = trainer_in(Path(), max_epochs=epochs)
        trainer.fit(module, datamodule)
        datamodule.batch_size = 4  # 9 validation items: the last batch is filled up by repeats
        losses.append(trainer.validate(module, datamodule, verbose=False)[0]["val/loss"])
        datamodule.batch_size = 10
        with torch.no_grad():
            expected = (module.model(pictures) - pictures).square().mean().item()
        assert losses[-1] == pytest.approx(expected, rel=1e-6)
        rows = module.evaluation_outputs().rows
        np.testing.assert_array_equal(rows, datamodule.rows("val"))
    assert losses[1] < 0.7 * losses[0]


@pytest.mark.slow
def test_a_nan_loss_names_the_items(new_module: NewModule, new_datamodule: NewDatamodule) -> None:
    module = new_module()
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    datamodule = new_datamodule()
    first = next(iter(datamodule.train_dataloader()))["rows"].tolist()
    with pytest.raises(NonFiniteLossError, match="loss is nan at step 0") as caught:
        trainer_in(Path()).fit(module, datamodule)
    assert all(f"item-{row:02d}" in str(caught.value) for row in first)
    with pytest.raises(RuntimeError, match="limit_val_batches"):
        new_module().evaluation_outputs()  # nothing was evaluated


def test_fingerprints_follow_the_weights_and_every_setting(new_module: NewModule) -> None:
    first, second = new_module(), new_module()
    assert weights_fingerprint(first.model) == weights_fingerprint(second.model)
    with torch.no_grad():
        next(second.parameters())[0] += 1e-6
    assert weights_fingerprint(first.model) != weights_fingerprint(second.model)
    settings = [
        Preprocessing(128, "stretch"),
        Preprocessing(64, "stretch"),
        Preprocessing(128, "letterbox"),
        Preprocessing(128, "stretch", values="0..1"),
    ]
    assert len({setting.fingerprint() for setting in settings}) == 4


def test_the_number_of_threads_survives_umap() -> None:
    restore_num_threads()  # another test may have run UMAP in this process
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)  # as numba does when UMAP runs
    restore_num_threads()
    assert torch.get_num_threads() == before


@pytest.fixture
def catalog(cached: CachedCatalog) -> Catalog:
    """The colour ``blue`` is in no training item, and some items have none."""
    table = cached.catalog.table.copy()
    train = table["split"] == "train"
    table.loc[train & (table["colour"] == "blue"), "colour"] = ""
    table.loc[[0, 57], "colour"] = ""
    return replace(cached.catalog, table=table)


def test_labels_count_the_values_of_the_training_split(catalog: Catalog) -> None:
    assert label_values(catalog, "colour") == ["green", "red"]
    labels = Labels.of_catalog(catalog, ["colour", "category"])
    colours = catalog.table["colour"].tolist()
    for row, number in enumerate(labels.numbers["colour"].tolist()):
        expected = {"green": 0, "red": 1}.get(colours[row], -1)
        assert number == expected
    assert labels.numbers["category"].min() == 0
    assert list(labels.values["category"]) == sorted(set(catalog.table["category"]))
    found = labels.of_rows(torch.tensor([3, 0, 1]), ["colour"])  # of a batch
    assert found["colour"].dtype == torch.int64
    np.testing.assert_array_equal(found["colour"], labels.numbers["colour"][[3, 0, 1]])
    assert labels.of_rows(torch.tensor([3]), []) == {}


def test_unknown_and_empty_columns_are_refused(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match=r"'color', expected one of .*category, .*colour"):
        label_values(catalog, "color")
    empty = replace(catalog, table=catalog.table.assign(colour=""))
    with pytest.raises(ValueError, match="'colour' has no value in the training split"):
        Labels.of_catalog(empty, ["colour"])


class Trained(nn.Module):
    """Named as a module under training names its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.objective = nn.Linear(4, 2)


def test_the_default_is_the_studys_adam_in_one_group_of_what_learns() -> None:
    module = Trained()
    optimizer = Optimization().build(module, 10)
    assert isinstance(optimizer, torch.optim.Adam)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (3e-4, 0, 6)
    module.model.requires_grad_(False)
    assert len(Optimization().build(module, 10).param_groups[0]["params"]) == 2


def test_only_matrices_decay_and_a_backbone_learns_at_its_share_of_the_rate() -> None:
    module = Trained()
    chosen = Optimization(
        learning_rate=1.0, optimizer="adamw", weight_decay=0.1, backbone_factor=0.1
    )
    groups = chosen.build(module, 10).param_groups
    found = {
        id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    for part, rate in ((module.model, 0.1), (module.objective, 1.0)):
        for parameter in part.parameters():
            assert found[id(parameter)] == (rate, 0.1 if parameter.ndim > 1 else 0.0)
    assert isinstance(Optimization(optimizer="sgd").build(module, 10), torch.optim.SGD)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_warms_up_and_falls(schedule: Any) -> None:
    chosen = Optimization(learning_rate=1.0, schedule=schedule, warmup_fraction=0.25)
    built = chosen.build(Trained(), 40)
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    if schedule == "constant":
        assert set(rates[10:]) == {1.0}
    else:
        assert rates[10:] == sorted(rates[10:], reverse=True)
        assert rates[25] == pytest.approx(0.5)
        assert 0 < rates[-1] < 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "lion"}, r"got optimizer 'lion', expected one of adam, adamw, sgd"),
        ({"schedule": "step"}, r"got schedule 'step', expected one of constant, cosine"),
        ({"learning_rate": 0.0}, r"got learning_rate 0\.0, expected a number above 0"),
        ({"learning_rate": math.nan}, "got learning_rate nan"),
        ({"momentum": 1.0}, r"got momentum 1\.0"),
        ({"weight_decay": -0.1}, r"got weight_decay -0\.1"),
        ({"warmup_fraction": 1.0}, r"got warmup_fraction 1\.0"),
        ({"backbone_factor": 0.0}, r"got backbone_factor 0\.0"),
    ],
)
def test_wrong_settings_of_the_optimiser_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Optimization(**settings)
