"""The LightningModule around an encoder and what it is trained for."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from numpy.typing import NDArray
from torch import Tensor

from visual_search.catalog.images import Fit
from visual_search.models.autoencoder import Autoencoder
from visual_search.models.embedding import EmbeddingHead
from visual_search.models.encoder import Encoder
from visual_search.models.objectives.objective import NoObjective, Objective, StepBatch
from visual_search.models.objectives.reconstruction import mse
from visual_search.training.augmentation import Augmentation, uniform_numbers
from visual_search.training.datamodule import Batch, datamodule_of
from visual_search.training.distributed import gather
from visual_search.training.labels import Labels
from visual_search.training.neighbour_positives import first_of_product
from visual_search.training.optimization import Optimization

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
    fit: Fit
    values: str = "-1..1"
    channels: str = "RGB"

    def fingerprint(self) -> str:
        """Returns a SHA-256 (hex) that changes with any of the settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class EvaluationOutputs:
    """What validation or test left behind, each item once, sorted by row.

    Attributes:
        rows: Catalogue rows, ``[n] int64``, ascending.
        features: What `EmbeddingHead.features` took from the network, ``[n, F] float32``.
        errors: Each item's error as the objective has it (of autoencoders the mean squared error
            in -1..1), ``[n] float32``; NaN where there is none.
    """

    rows: NDArray[np.int64]
    features: NDArray[np.float32]
    errors: NDArray[np.float32]


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the message names the batch's items."""


class EncoderModule(LightningModule):
    """Trains an encoder for an objective and keeps what it computes at evaluation.

    Args:
        model: The network.
        preprocessing: What the pictures went through; a checkpoint with another one is refused.
        objective: What it is trained for; None reconstructs with mean squared error, or, without a
            decoder, only embeds.
        head: What of the network is indexed; None takes its own embedding as it is.
        augmentation: Makes the views that the objective asks for; None gives the pictures.
        labels: Of the columns that the objective asks for.
        optimization: Optimiser and schedule.
        seed: Seed of every batch's random numbers, which are a function of (seed, batch).
        item_ids: Id of each catalogue row, to name the items of a batch that fails.
        products: Product of each catalogue row, where products have several pictures: two of one
            product are no negatives of each other.

    Raises:
        ValueError: The objective cannot train this network.
    """

    def __init__(
        self,
        model: Encoder,
        preprocessing: Preprocessing,
        *,
        objective: Objective | None = None,
        head: EmbeddingHead | None = None,
        augmentation: Augmentation | None = None,
        labels: Labels | None = None,
        optimization: Optimization | None = None,
        seed: int = 0,
        item_ids: Sequence[str] = (),
        products: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.preprocessing = preprocessing
        self.objective = objective or (mse() if isinstance(model, Autoencoder) else NoObjective())
        self.objective.check_encoder(self.model)
        self.head = head or EmbeddingHead(self.model)
        self.augmentation = augmentation
        self.labels = labels or Labels()
        self.optimization = optimization or Optimization()
        self.seed = seed
        self.item_ids = item_ids
        self._shows = None if products is None else torch.from_numpy(first_of_product(products))
        self.evaluation: Evaluation | None = None  # of the newest evaluation, on the first process
        self._outputs: list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]] = []
        self._gathered: EvaluationOutputs | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Returns embeddings ``[B, D]`` float32 of uint8 pictures ``[B, 3, S, S]``."""
        embeddings: Tensor = self.head(self.features(images))
        return embeddings

    def features(self, images: Tensor) -> Tensor:
        """Returns ``[B, F]`` float32 of uint8 pictures ``[B, 3, S, S]``, what the head takes."""
        return self.head.features(self.model, to_network(images))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns the optimiser over what is to learn, and its schedule."""
        steps = datamodule_of(self.trainer).num_training_steps()
        built: OptimizerLRScheduler = self.optimization.build(self, steps)
        return built

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds this batch, so that a resumed run draws what an uninterrupted one draws."""
        per_step = self.trainer.accumulate_grad_batches
        number = self.global_step * per_step + batch_idx % per_step
        entropy = np.random.SeedSequence([self.seed, number, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the objective's loss of the batch.

        Raises:
            NonFiniteLossError: The loss is NaN or infinite.
        """
        losses = self.objective(self.model, self._step_batch(batch))
        loss: Tensor = losses["loss"]
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the training loss is {loss.item()} at step {self.global_step} (epoch "
                f"{self.current_epoch}); the batch's items: {self._name_items(batch['rows'])}; "
                "look at these pictures, or lower training.learning_rate "
                f"(now {self.optimization.learning_rate:g})"
            )
        size = len(batch["rows"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, batch_size=size)
        for name, value in losses.items():
            if name != "loss":
                self.log(f"train/{name}", value, on_step=True, batch_size=size)
        return loss

    def _step_batch(self, batch: Batch) -> StepBatch:
        """Returns what a training step sees: the pictures, their views, their labels."""
        images = to_network(batch["images"])
        rows, partners = batch["rows"], batch.get("partner_rows")
        shown = [images] * self.objective.num_views
        if partners is not None:  # only where the objective sees two: see `check_partners`
            shown[1] = to_network(batch["partner_images"])
        return StepBatch(
            images=images,
            views=tuple(self._view(view, pictures, batch) for view, pictures in enumerate(shown)),
            rows=self._shown(rows),
            partner_rows=None if partners is None else self._shown(partners),
            labels=self.labels.of_rows(rows, self.objective.columns),
        )

    def _shown(self, rows: Tensor) -> Tensor:
        """Returns what rows show, by a row: a product by its first picture's."""
        if self._shows is None:
            return rows
        self._shows = self._shows.to(rows.device)
        return self._shows[rows]

    def _view(self, view: int, pictures: Tensor, batch: Batch) -> Tensor:
        if self.augmentation is None:
            return pictures
        positions = as_numpy(batch["positions"])
        numbers = uniform_numbers(
            self.seed, self.current_epoch, positions, view, self.augmentation.num_numbers
        )
        strengths = batch.get("strengths")  # like the numbers on the CPU, where ranges are drawn
        return self.augmentation(
            pictures,
            torch.from_numpy(numbers),
            None if strengths is None else strengths.cpu(),
        )

    def on_validation_epoch_start(self) -> None:
        """Forgets the outputs of the evaluation before."""
        self._outputs, self._gathered = [], None

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps features and error of every item."""
        images, rows = to_network(batch["images"]), batch["rows"]
        labels = self.labels.of_rows(rows, self.objective.columns)
        seen = StepBatch(images, (), rows, labels=labels)
        if self.head.settings.layer is None:  # features and errors are of one pass
            seen = replace(seen, embeddings=self.model.encode(images))
        features = self.head.features(self.model, images, seen.embeddings)
        errors = self.objective.errors(self.model, seen)
        if errors is None:
            errors = torch.full((len(rows),), math.nan)
        self._outputs.append((as_numpy(rows), as_numpy(features), as_numpy(errors)))

    test_step = validation_step

    def evaluation_outputs(self) -> EvaluationOutputs:
        """Returns what the steps of this evaluation kept, from all processes, each item once.

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
            rows, features, errors = (
                gather(np.concatenate(parts)) for parts in zip(*self._outputs, strict=True)
            )
            # Repeated rows (a filled-up last batch, another process) count once; sorts by row.
            unique, first = np.unique(rows, return_index=True)
            self._gathered = EvaluationOutputs(
                unique.astype(np.int64),
                np.ascontiguousarray(features[first], dtype=np.float32),
                errors[first].astype(np.float32),
            )
        return self._gathered

    def on_validation_epoch_end(self) -> None:
        """Logs the mean error over the items, each once."""
        self._log_loss("val")

    def on_test_epoch_end(self) -> None:
        """Logs the mean error over the items, each once."""
        self._log_loss("test")

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Stores the preprocessing beside the weights."""
        checkpoint["preprocessing"] = asdict(self.preprocessing)

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
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
        errors = self.evaluation_outputs().errors
        known = errors[np.isfinite(errors)]
        if not len(known):
            return  # the objective has no error of a single item
        # Every process computes the same float64 mean of the same sorted items.
        loss = float(known.astype(np.float64).mean())
        self.log(f"{split}/loss", loss, prog_bar=True, rank_zero_only=False, sync_dist=False)

    def _name_items(self, rows: Tensor) -> str:
        indices = rows.tolist()
        return ", ".join(self.item_ids[i] if self.item_ids else f"row {i}" for i in indices)


def to_network(images: Tensor) -> Tensor:
    """Returns float32 pictures in -1..1, channels last in memory, of uint8 ``[B, 3, S, S]``."""
    scaled = images.to(dtype=torch.float32, memory_format=torch.channels_last)
    return scaled.div_(127.5).sub_(1.0)


def to_pictures(images: Tensor) -> NDArray[np.uint8]:
    """Returns uint8 pictures ``[B, 3, S, S]`` of network outputs in -1..1."""
    pixels = images.float().add(1.0).mul(127.5).round().clamp(0, 255)
    return np.ascontiguousarray(pixels.to(torch.uint8).cpu().numpy())


def as_numpy(tensor: Tensor) -> NDArray[Any]:
    """Returns the tensor as NumPy: detached, contiguous, floats as float32. The only such place."""
    detached = tensor.detach()
    if detached.is_floating_point():
        detached = detached.float()
    return np.ascontiguousarray(detached.cpu().numpy())


def weights_fingerprint(model: Encoder) -> str:
    """Returns a SHA-256 (hex) of the names, shapes and values of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
