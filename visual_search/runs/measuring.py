"""The measuring pipeline: embeddings in, evaluation, floors, intervals and files out."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, get_args

from visual_search.config.builders import one_of
from visual_search.config.schemas import EvaluateSchema, TrainSchema
from visual_search.runs.run import Run, State

if TYPE_CHECKING:
    import numpy as np
    from lightning import Trainer
    from numpy.typing import NDArray

    from visual_search.runs.parts import Parts
    from visual_search.training.evaluation import Evaluation
    from visual_search.training.floors import Floors
    from visual_search.training.query_gallery import Sides


# What of the settings measures embeddings from outside: nothing was trained.
OF_A_MEASUREMENT = (
    "data", "split", "pictures", "loader", "embedding", "protocol", "index", "floors",
    "near_duplicates",
)  # fmt: skip


@contextlib.contextmanager
def working(place: Run, parts: Parts, settings: EvaluateSchema, **facts: object) -> Iterator[bool]:
    """Holds a measurement's folder, and leaves a status that tells how it ended.

    Yields:
        Whether there is work left: another command may have finished it just before.
    """
    import yaml

    from visual_search.atomic import telling_full_disk, write_text

    facts |= {
        "catalog": parts.catalog.name,
        "catalog_fingerprint": parts.catalog.fingerprint(),
        "query_split": settings.query_split,
    }
    started = time.time()
    state: State = "failed"
    error = ""
    place.lock()
    if not settings.rerun and place.state == "finished":
        place.unlock()
        yield False
        return
    try:
        place.clear()
        text = yaml.safe_dump(_written(parts.settings, place), sort_keys=False, allow_unicode=True)
        write_text(place.folder / "config.yaml", text)
        place.save_environment()
        place.set_state("running", **facts)
        with telling_full_disk(place.folder):
            yield True
        state = "finished"
    except (KeyboardInterrupt, SystemExit):
        state = "interrupted"
        raise
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
        raise
    finally:
        place.set_state(state, seconds=time.time() - started, error=error, **facts)
        place.unlock()


def _written(merged: TrainSchema, place: Run) -> dict[str, object]:
    """Returns the settings as they are written beside a measurement."""
    plain = dataclasses.asdict(merged)
    if merged.split.kept == str(place.split):  # known by where it lies
        plain["split"]["kept"] = None
    return plain if merged.model else {name: plain[name] for name in OF_A_MEASUREMENT}


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings of a measurement's sides, and where they come from.

    Attributes:
        embeddings: ``[n, D] float32``, a row for every catalogue row; only the sides' are read.
        facts: What the summary should say of them.
        seconds_per_item: Time of the embedding pass; NaN where there was none.
        epoch: Epochs trained.
        trainer: Where and how exactly they were computed; None: elsewhere.
    """

    embeddings: NDArray[np.float32]
    facts: Mapping[str, object] = field(default_factory=dict)
    seconds_per_item: float = math.nan
    epoch: int = 0
    trainer: Trainer | None = None


def evaluated(parts: Parts, sides: Sides, split: str, embedded: Embedded) -> Evaluation:
    """Searches and scores.

    Args:
        parts: Of what is measured.
        sides: Who asks whom.
        split: The split that asks.
        embedded: What is searched.
    """
    import numpy as np

    from visual_search.knn.device import Device
    from visual_search.training.evaluation import evaluate_embeddings, index_place

    device, gpu = one_of("index.device", parts.settings.index.device, get_args(Device)), 0
    if embedded.trainer is not None:
        device, gpu = index_place(device, embedded.trainer)
    selection = sides.selection
    return evaluate_embeddings(
        parts.cached.catalog,
        parts.protocol,
        sides,
        split=split,
        epoch=embedded.epoch,
        gallery_embeddings=np.ascontiguousarray(embedded.embeddings[selection.gallery_rows]),
        query_embeddings=np.ascontiguousarray(embedded.embeddings[selection.query_rows]),
        index_device=device,
        index_gpu=gpu,
        seconds_per_item=embedded.seconds_per_item,
    )


def measure(place: Run, parts: Parts, sides: Sides, embedded: Embedded, floors: Floors) -> None:
    """Searches, scores, and writes everything into the folder."""
    from visual_search.retrieval.report import with_intervals
    from visual_search.runs.results import save_evaluation
    from visual_search.views.progress import progress_bar

    evaluation = evaluated(parts, sides, place.status()["query_split"], embedded)
    evaluation = replace(evaluation, report=with_intervals(evaluation.report))
    trainer = embedded.trainer
    if parts.settings.floors:
        with progress_bar("Embedding the floors", " pictures") as advance:
            found = floors.measure(
                parts.cached.catalog,
                parts.cached.pictures,
                parts.protocol,
                sides.selection,
                device=trainer.strategy.root_device if trainer else "cpu",
                precision=trainer.precision_plugin if trainer else None,
                on_progress=advance,
            )
        evaluation = replace(evaluation, floors=found)
    save_evaluation(place.folder, parts, evaluation, embedded.facts)
