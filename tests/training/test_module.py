"""The LightningModule: what it computes, refuses and keeps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import NewDatamodule, NewModule, trainer_in
from visual_search.catalog.cache import CachedCatalog
from visual_search.training.distributed import restore_num_threads
from visual_search.training.module import (
    NonFiniteLossError,
    Preprocessing,
    to_network,
    to_pictures,
    weights_fingerprint,
)

pytestmark = pytest.mark.slow


def test_every_pixel_value_survives_the_way_to_the_network_and_back() -> None:
    values = np.arange(256, dtype=np.uint8)
    pictures = np.broadcast_to(values[:, None, None, None], (256, 3, 2, 2)).copy()
    scaled = to_network(torch.from_numpy(pictures))
    assert (scaled.min(), scaled.max()) == (-1, 1)
    np.testing.assert_array_equal(to_pictures(scaled), pictures)


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
