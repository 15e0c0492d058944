"""The LightningModule around an autoencoder variant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningModule
from numpy.typing import NDArray
from torch import Tensor

from visual_search.models.autoencoder import Autoencoder
from visual_search.training.datamodule import Batch
from visual_search.training.processes import gather

if TYPE_CHECKING:
    from visual_search.training.evaluation import Evaluation


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes what the network sees; travels in every checkpoint and index.

    Attributes:
        image_size_px: Side of the square picture.
        fit: ``stretch`` or ``letterbox``.
        values: Range of the values after scaling.
        channels: Their order.
    """

    image_size_px: int
    fit: str
    values: str = "-1..1"
    channels: str = "RGB"

    def fingerprint(self) -> str:
        """Gives a SHA-256 (hex) that changes with any of the settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class EvaluationOutputs:
    """What validation or test left behind, each item once, sorted by row.

    Attributes:
        rows: Catalogue rows, ``[n] int64``, ascending.
        embeddings: ``[n, D] float32``.
        squared_errors: Mean squared error of each reconstruction in -1..1, ``[n] float32``.
    """

    rows: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    squared_errors: NDArray[np.float32]


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the message names the batch's items."""


class AutoencoderModule(LightningModule):
    """Trains an autoencoder on mean squared error and keeps its embeddings at evaluation.

    Args:
        model: The variant.
        preprocessing: What the pictures went through; a checkpoint with another one is refused.
        learning_rate: Of Adam.
        seed: Seed of every step's random numbers: a step's are a function of (seed, step).
        item_ids: Id of each catalogue row, to name the items of a batch that fails.
    """

    def __init__(
        self,
        model: Autoencoder,
        preprocessing: Preprocessing,
        *,
        learning_rate: float = 3e-4,
        seed: int = 0,
        item_ids: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not learning_rate > 0:
            raise ValueError(
                f"got learning_rate {learning_rate}, expected a number above 0; set "
                "training.learning_rate"
            )
        self.model = model.to(memory_format=torch.channels_last)
        self.preprocessing = preprocessing
        self.learning_rate = learning_rate
        self.seed = seed
        self.item_ids = item_ids
        self.evaluation: Evaluation | None = None  # of the newest evaluation, on the first process
        self._outputs: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        self._gathered: EvaluationOutputs | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Gives embeddings ``[B, D]`` float32 of uint8 pictures ``[B, 3, S, S]``."""
        return self.model.encode(to_network(images)).float()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Gives Adam over all parameters."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds this step, so that a resumed run draws what an uninterrupted one draws."""
        entropy = np.random.SeedSequence([self.seed, self.global_step, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Gives the batch's mean squared error.

        Raises:
            NonFiniteLossError: The loss is NaN or infinite.
        """
        images = to_network(batch["images"])
        loss = F.mse_loss(self.model(images).float(), images)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the training loss is {loss.item()} at step {self.global_step} (epoch "
                f"{self.current_epoch}); the batch's items: {self._name_items(batch['rows'])}; "
                "look at these pictures, or lower training.learning_rate "
                f"(now {self.learning_rate:g})"
            )
        self.log("train/loss", loss, prog_bar=True, on_step=True, batch_size=len(images))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forgets the outputs of the evaluation before."""
        self._outputs, self._gathered = [], None

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps embedding and reconstruction error of every item."""
        images = to_network(batch["images"])
        embeddings = self.model.encode(images)
        errors = (self.model.decode(embeddings).float() - images).square().mean(dim=(1, 2, 3))
        self._outputs.append((as_numpy(batch["rows"]), as_numpy(embeddings), as_numpy(errors)))

    test_step = validation_step

    def evaluation_outputs(self) -> EvaluationOutputs:
        """Gives what the steps of this evaluation kept, from all processes, each item once.

        Every process has to call it, since it gathers; a second call gives the same object.

        Raises:
            RuntimeError: No batch was evaluated.
        """
        if self._gathered is None:
            if not self._outputs:
                raise RuntimeError(
                    "no validation or test batch was evaluated; expected at least one; give the "
                    "split items or raise trainer.limit_val_batches"
                )
            rows, embeddings, errors = (
                gather(np.concatenate(parts)) for parts in zip(*self._outputs, strict=True)
            )
            # Repeated rows (a filled-up last batch, another process) count once; sorts by row.
            unique, first = np.unique(rows, return_index=True)
            self._gathered = EvaluationOutputs(
                unique.astype(np.int64),
                np.ascontiguousarray(embeddings[first], dtype=np.float32),
                errors[first].astype(np.float32),
            )
        return self._gathered

    def on_validation_epoch_end(self) -> None:
        """Logs the mean error over the items, each once."""
        self._log_loss("val")

    def on_test_epoch_end(self) -> None:
        """Logs the mean error over the items, each once."""
        self._log_loss("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the preprocessing beside the weights."""
        checkpoint["preprocessing"] = asdict(self.preprocessing)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses weights that were trained on differently prepared pictures.

        Raises:
            ValueError: The checkpoint's preprocessing is missing or another one.
        """
        found, expected = checkpoint.get("preprocessing"), asdict(self.preprocessing)
        if found != expected:
            raise ValueError(
                f"the checkpoint was trained with preprocessing {found}, this run has {expected}; "
                "set pictures.size_px and pictures.fit to the checkpoint's, or train anew with "
                "rerun=true"
            )

    def _log_loss(self, split: str) -> None:
        errors = self.evaluation_outputs().squared_errors
        # Every process computes the same float64 mean of the same sorted items.
        loss = float(errors.astype(np.float64).mean())
        self.log(f"{split}/loss", loss, prog_bar=True, rank_zero_only=False, sync_dist=False)

    def _name_items(self, rows: Tensor) -> str:
        indices = rows.tolist()
        return ", ".join(self.item_ids[i] if self.item_ids else f"row {i}" for i in indices)


def to_network(images: Tensor) -> Tensor:
    """Gives float32 pictures in -1..1, channels last in memory, of uint8 ones ``[B, 3, S, S]``."""
    scaled = images.to(dtype=torch.float32, memory_format=torch.channels_last)
    return scaled.div_(127.5).sub_(1.0)


def to_pictures(images: Tensor) -> NDArray[np.uint8]:
    """Gives uint8 pictures ``[B, 3, S, S]`` of network outputs in -1..1."""
    pixels = images.float().add(1.0).mul(127.5).round().clamp(0, 255)
    return np.ascontiguousarray(pixels.to(torch.uint8).cpu().numpy())


def as_numpy(tensor: Tensor) -> NDArray[Any]:
    """Gives the tensor as NumPy: detached, contiguous, floats as float32. The only such place."""
    detached = tensor.detach()
    if detached.is_floating_point():
        detached = detached.float()
    return np.ascontiguousarray(detached.cpu().numpy())


def weights_fingerprint(model: Autoencoder) -> str:
    """Gives a SHA-256 (hex) of the names, shapes and values of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
