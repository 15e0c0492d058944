"""The networks that embed shards: a finished run's, under Lightning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from visual_search.config.schemas import EmbedTrainer
from visual_search.runs.run import Run, run_label

if TYPE_CHECKING:
    from lightning import Trainer

    from visual_search.catalog.images import Fit
    from visual_search.runs.embedding_job import EmbeddingJob
    from visual_search.training.module import EncoderModule


@dataclass(frozen=True)
class NetworkPlace:
    """Which network embeds, and where it computes: what a process needs to open it.

    Attributes:
        run: Folder of a finished run.
        trainer: Where, and how exactly.
    """

    run: str
    trainer: EmbedTrainer


@dataclass(frozen=True)
class NetworkFacts:
    """What a network makes of pictures, as the settings of shards have it.

    Attributes:
        name: Of the run, as ``plus_layer/0123456789``.
        model_hash: SHA-256 (hex) of the network's weights.
        preprocessing_hash: SHA-256 (hex) of the way from picture to network input.
        embedding_hash: SHA-256 (hex) of the way from the network's values to the embedding.
        dim: Embedding width D.
        size_px: Side S of the pictures that it takes.
        fit: How they are brought to a square.
    """

    name: str
    model_hash: str
    preprocessing_hash: str
    embedding_hash: str
    dim: int
    size_px: int
    fit: Fit


class Network(Protocol):
    """What embeds shards in this process, and in those that it starts."""

    @property
    def facts(self) -> NetworkFacts:
        """What it makes of pictures."""
        ...

    @property
    def precision(self) -> str:
        """Of the numbers inside it, as ``32-true``."""
        ...

    @property
    def num_processes(self) -> int:
        """That share the cores of this machine."""
        ...

    def embed(
        self, job: EmbeddingJob | None, on_progress: Callable[[int, int], None] | None
    ) -> None:
        """Embeds and writes the missing shards of a job.

        Args:
            job: None in a further process, which is told by the first.
            on_progress: Called with (items embedded, items to embed), in the first process.

        Raises:
            BadItemsError: A picture cannot be used, and that is an error.
        """
        ...


def open_network(place: NetworkPlace) -> Network:
    """Returns the network of a place.

    Raises:
        ConfigError: The run is not finished, or this machine does not have what is asked for.
        ValueError: It is damaged.
    """
    from visual_search.runs.finished import finished_run

    return RunNetwork(finished_run(place.run), place.trainer)


class RunNetwork:
    """A finished run's network.

    Args:
        run: Finished.
        asked: Where it computes, how exactly, and in how many processes.
    """

    def __init__(self, run: Run, asked: EmbedTrainer) -> None:
        from visual_search.runs.parts import load_module

        self._run = run
        self._asked = asked
        self._module: EncoderModule = load_module(run)

    @cached_property
    def _trainer(self) -> Trainer:
        return new_trainer_of(self._run, self._asked)

    @cached_property
    def facts(self) -> NetworkFacts:
        """What it makes of pictures."""
        from visual_search.training.module import weights_fingerprint

        module = self._module
        return NetworkFacts(
            name=run_label(self._run.folder),
            model_hash=weights_fingerprint(module.model),
            preprocessing_hash=module.preprocessing.fingerprint(),
            embedding_hash=module.head.fingerprint(),
            dim=module.head.embedding_dim,
            size_px=module.preprocessing.image_size_px,
            fit=module.preprocessing.fit,
        )

    @property
    def precision(self) -> str:
        """Of the numbers inside it: as asked, or what this machine takes."""
        asked = self._asked.precision
        return str(self._trainer.precision) if asked == "auto" else asked

    @property
    def num_processes(self) -> int:
        """That share the cores of this machine."""
        return int(self._trainer.num_devices)

    def embed(
        self, job: EmbeddingJob | None, on_progress: Callable[[int, int], None] | None
    ) -> None:
        """Embeds and writes the missing shards, in as many processes as the trainer starts.

        Args:
            job: None in a further process, which is told by the first.
            on_progress: Called with (items embedded, items to embed), in the first process.

        Raises:
            BadItemsError: A picture cannot be used, and that is an error.
        """
        from visual_search.training.shards import ShardEmbedder, others_wait

        trainer = self._trainer
        if job is not None and not job.missing and not others_wait(trainer):
            return
        shown = on_progress if trainer.is_global_zero else None
        embedder = ShardEmbedder(self._module, job, shown)
        trainer.predict(embedder, return_predictions=False)
        trainer.strategy.barrier("shards")  # the others may still be writing theirs


def new_trainer_of(run: Run, asked: EmbedTrainer | None = None) -> Trainer:
    """Returns a trainer that embeds in a run's own precision, where this machine has it.

    Args:
        run: Finished.
        asked: Where, and how exactly; by default wherever it is quickest.
    """
    from visual_search.runs.embeddings import precision_here
    from visual_search.runs.parts import new_trainer

    given = dict(vars(asked or EmbedTrainer()))
    own = run.summary().get("precision")
    if given["precision"] == "auto" and own is not None:
        given["precision"] = precision_here(own, given["accelerator"], given["devices"])
    node = {
        "_target_": "visual_search.training.trainer.build_trainer",
        "max_epochs": 1,
        "enable_progress_bar": False,
        **given,
    }
    return new_trainer(node, folder=run.folder)
