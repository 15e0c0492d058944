"""The LightningModule: what it computes, refuses and keeps."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import trainer_in
from visual_search.catalog.cache import CachedCatalog
from visual_search.training.datamodule import CatalogDataModule
from visual_search.training.devices import find_hardware
from visual_search.training.distributed import restore_num_threads
from visual_search.training.module import (
    EncoderModule,
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


def test_training_lowers_the_loss(
    new_module: Callable[[], EncoderModule], new_datamodule: Callable[..., CatalogDataModule]
) -> None:
    module, losses = new_module(), []
    for epochs in (0, 5):
        trainer = trainer_in(Path(), max_epochs=epochs)
        trainer.fit(module, new_datamodule())
        losses.append(trainer.validate(module, new_datamodule(), verbose=False)[0]["val/loss"])
    assert losses[1] < 0.7 * losses[0]


def test_the_loss_is_the_mean_over_items_not_over_batches(
    new_module: Callable[[], EncoderModule],
    new_datamodule: Callable[..., CatalogDataModule],
    cached: CachedCatalog,
) -> None:
    module, datamodule = new_module(), new_datamodule()
    datamodule.batch_size = 4  # 9 validation items: the last batch is filled up by repeats
    logged = trainer_in(Path()).validate(module, datamodule, verbose=False)[0]["val/loss"]
    pictures = to_network(torch.from_numpy(cached.pictures[datamodule.rows("val")]))
    with torch.no_grad():
        expected = (module.model(pictures) - pictures).square().mean().item()
    assert logged == pytest.approx(expected, rel=1e-6)
    outputs = module.evaluation_outputs()
    np.testing.assert_array_equal(outputs.rows, datamodule.rows("val"))


def test_a_nan_loss_names_the_items(
    new_module: Callable[[], EncoderModule], new_datamodule: Callable[..., CatalogDataModule]
) -> None:
    module = new_module()
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    datamodule = new_datamodule()
    first = next(iter(datamodule.train_dataloader()))["rows"].tolist()
    with pytest.raises(NonFiniteLossError, match="loss is nan at step 0") as caught:
        trainer_in(Path()).fit(module, datamodule)
    assert all(f"item-{row:02d}" in str(caught.value) for row in first)


def test_no_evaluated_batch_is_an_error(new_module: Callable[[], EncoderModule]) -> None:
    with pytest.raises(RuntimeError, match="limit_val_batches"):
        new_module().evaluation_outputs()


def test_the_fingerprint_follows_the_weights(new_module: Callable[[], EncoderModule]) -> None:
    first, second = new_module(), new_module()
    assert weights_fingerprint(first.model) == weights_fingerprint(second.model)
    with torch.no_grad():
        next(second.parameters())[0] += 1e-6
    assert weights_fingerprint(first.model) != weights_fingerprint(second.model)


def test_the_preprocessing_fingerprint_follows_every_setting() -> None:
    settings = [
        Preprocessing(128, "stretch"),
        Preprocessing(64, "stretch"),
        Preprocessing(128, "letterbox"),
        Preprocessing(128, "stretch", values="0..1"),
    ]
    assert len({setting.fingerprint() for setting in settings}) == 4


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_precision_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: str
) -> None:
    monkeypatch.setattr("visual_search.training.devices.cpu_has_bf16", lambda: bf16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_hardware().precision == expected
    assert find_hardware(precision="32-true").precision == "32-true"


def test_the_number_of_threads_survives_umap() -> None:
    restore_num_threads()  # another test may have run UMAP in this process
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)  # as numba does when UMAP runs
    restore_num_threads()
    assert torch.get_num_threads() == before
