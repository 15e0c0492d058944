"""The networks that embed shards: a finished run's, under Lightning, and a bundle's, without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from visual_search.config.builders import ConfigError, one_of
from visual_search.config.schemas import EmbedTrainer
from visual_search.runs.run import Run, run_label

if TYPE_CHECKING:
    from lightning import Trainer

    from visual_search.bundle.encoder import OnnxEncoder
    from visual_search.bundle.manifest import BundleManifest
    from visual_search.catalog.images import Fit
    from visual_search.runs.embedding_job import EmbeddingJob
    from visual_search.training.module import EncoderModule

Accelerator = Literal["auto", "cpu", "gpu"]  # as `visual_search.bundle.encoder` has it


@dataclass(frozen=True)
class NetworkPlace:
    """Which network embeds, and where it computes: what a process needs to open it.

    Attributes:
        run: Folder of a finished run; None for a bundle's network.
        bundle: Folder of a bundle, or its address on object storage; None for a run's.
        trainer: Where, and how exactly.
        num_threads: That a bundle's network computes with; None takes one a usable core.
    """

    run: str | None
    bundle: str | None
    trainer: EmbedTrainer
    num_threads: int | None = None

    def on_cpu(self) -> NetworkPlace:
        """Returns the same network on the CPU of one process: what asks for no more than facts."""
        return replace(self, trainer=replace(self.trainer, accelerator="cpu", devices=1))


@dataclass(frozen=True)
class NetworkFacts:
    """What a network makes of pictures, as the settings of shards have it.

    Attributes:
        name: Of the run, as ``plus_layer/0123456789``.
        model_hash: SHA-256 (hex) of the network's weights, or of a bundle's encoder, which is all
            three.
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

    if place.bundle is not None:
        return BundleNetwork(place.bundle, place.trainer, place.num_threads)
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

        SIGTERM and Ctrl-C end it at once: a shard is there whole or not at all.

        Args:
            job: None in a further process, which is told by the first.
            on_progress: Called with (items embedded, items to embed), in the first process.

        Raises:
            BadItemsError: A picture cannot be used, and that is an error.
            Terminated: A signal arrived.
        """
        from visual_search.training.checkpointing import Interruption, Terminated
        from visual_search.training.processes import telling_gone
        from visual_search.training.shards import ShardEmbedder, others_wait

        trainer = self._trainer
        if job is not None and not job.missing and not others_wait(trainer):
            return
        shown = on_progress if trainer.is_global_zero else None
        embedder = ShardEmbedder(self._module, job, shown)
        # Lightning's own handler notes a SIGTERM, and predicts on.
        with Interruption(), telling_gone():
            try:
                trainer.predict(embedder, return_predictions=False)
            except Terminated:
                if trainer.is_global_zero:
                    print("Interrupted; the same command goes on with the shards that are missing")
                raise
            trainer.strategy.barrier("shards")  # the others may still be writing theirs


class BundleNetwork:
    """A bundle's encoder, by ONNX Runtime: one process, in float32.

    Args:
        place: The bundle's folder, or its address on object storage, of which the encoder alone is
            copied to this machine.
        asked: Where it computes.
        num_threads: With; None takes one a usable core.

    Raises:
        ConfigError: Something else than one device and float32 is asked for, a GPU is and is not
            there, or the extra is not installed.
        FileNotFoundError: There is no bundle.
        ValueError: It is damaged.
        StorageError: Object storage does not answer, or refuses.
    """

    precision = "32-true"
    num_processes = 1

    def __init__(self, place: str, asked: EmbedTrainer, num_threads: int | None) -> None:
        from visual_search.bundle.remote import local_encoder

        folder, self._manifest = local_encoder(place)
        accelerator = {"cuda": "gpu"}.get(asked.accelerator, asked.accelerator)
        for key, value, known in (
            ("accelerator", accelerator, get_args(Accelerator)),
            ("precision", asked.precision, ("auto", self.precision)),
            ("devices", str(asked.devices), ("1",)),
            ("strategy", asked.strategy, ("auto",)),
        ):
            if value not in known:
                raise ConfigError(
                    f"trainer.{key}={value} with a bundle's encoder; expected one of "
                    f"{list(known)}: set it, or embed by the run (run=PATH); several processes are "
                    "engine=ray's"
                )
        self._encoder = _encoder_of(folder, self._manifest, num_threads, accelerator)

    @cached_property
    def facts(self) -> NetworkFacts:
        """What it makes of pictures."""
        told, encoder = self._manifest.facts, self._manifest.encoder
        return NetworkFacts(
            name="/".join(str(told[key]) for key in ("experiment", "run") if key in told)
            or self._manifest.name,
            model_hash=encoder.sha256,
            preprocessing_hash=encoder.sha256,
            embedding_hash=encoder.sha256,
            dim=encoder.embedding_dim,
            size_px=encoder.image_size_px,
            fit=self._encoder.fit,
        )

    def embed(
        self, job: EmbeddingJob | None, on_progress: Callable[[int, int], None] | None
    ) -> None:
        """Embeds and writes the missing shards.

        Args:
            job: What is to be embedded.
            on_progress: Called with (items embedded, items to embed).

        Raises:
            BadItemsError: A picture cannot be used, and that is an error.
            ConfigError: This is a further process.
        """
        import numpy as np

        if job is None:
            raise ConfigError(
                "bundle= was started in several processes; expected one: start it without torchrun "
                "or srun, or take engine=ray"
            )
        done = 0
        for number in job.missing:
            found = [np.empty((0, self.facts.dim), np.float32)]
            for batch in job.batches(number):
                if batch.num_kept:
                    found.append(self._encoder.embed(batch.images[: batch.num_kept]))
                done += batch.num_kept
                if batch.items is not None:
                    job.write(number, batch.items, np.concatenate(found))
                    done += len(batch.items.refused)
                if on_progress is not None:
                    on_progress(done, job.num_items)


def _encoder_of(
    folder: Path, manifest: BundleManifest, num_threads: int | None, accelerator: str
) -> OnnxEncoder:
    from visual_search.bundle.encoder import NoGpuError
    from visual_search.bundle.indexing import load_encoder

    chosen = one_of("trainer.accelerator", accelerator, get_args(Accelerator))
    try:
        return load_encoder(folder, manifest, num_threads, chosen)
    except NoGpuError as error:
        raise ConfigError(f"trainer.accelerator={accelerator}: {error}") from error
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; expected the extra 'serve'; run: "
            "pip install 'visual-search[serve]'"
        ) from error


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
