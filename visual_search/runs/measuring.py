"""The measuring pipeline: embeddings in, evaluation, floors, intervals and files out."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from visual_search.config.builders import one_of
from visual_search.config.schemas import EvaluateSchema, TrainSchema
from visual_search.runs.run import Run, State

if TYPE_CHECKING:
    import numpy as np
    from lightning import Trainer
    from numpy.typing import NDArray

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.catalog.catalog import Catalog
    from visual_search.retrieval.protocol import Protocol
    from visual_search.training.evaluation import Evaluation
    from visual_search.training.floors import Floors
    from visual_search.training.query_gallery import Sides


# What of the settings measures embeddings from outside: nothing was trained.
OF_A_MEASUREMENT = (
    "data", "split", "pictures", "loader", "embedding", "protocol", "index", "floors",
    "near_duplicates",
)  # fmt: skip


@contextlib.contextmanager
def working(
    place: Run,
    merged: TrainSchema,
    catalog: Catalog,
    settings: EvaluateSchema,
    **facts: Any,
) -> Iterator[bool]:
    """Holds a measurement's folder, and leaves a status that tells how it ended.

    Yields:
        Whether there is work left: another command may have finished it just before.
    """
    import yaml

    from visual_search.atomic import telling_full_disk, write_text

    facts |= {
        "catalog": catalog.name,
        "catalog_fingerprint": catalog.fingerprint(),
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
        text = yaml.safe_dump(_written(merged), sort_keys=False, allow_unicode=True)
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


def _written(merged: TrainSchema) -> dict[str, Any]:
    """Returns the settings as they are written beside a measurement."""
    plain = dataclasses.asdict(merged)
    return plain if merged.model else {name: plain[name] for name in OF_A_MEASUREMENT}


def choose_query_gallery(protocol: Protocol, cached: CachedCatalog, split: str) -> Sides:
    """Returns who asks and who is searched, the leaks between them found under a progress bar.

    Raises:
        ValueError: The protocol cannot be met.
    """
    from visual_search.runs.parts import progress_bar
    from visual_search.training.query_gallery import check_depth, choose_sides

    with progress_bar("Looking for leaks", " pictures") as advance:
        sides = choose_sides(protocol, cached.catalog, cached.pictures, split, advance)
    check_depth(protocol, cached.catalog, sides.selection, split)
    return sides


def measure(
    place: Run,
    merged: TrainSchema,
    cached: CachedCatalog,
    protocol: Protocol,
    sides: Sides,
    embeddings: NDArray[np.float32],
    *,
    floors: Floors,
    seconds_per_item: float,
    epoch: int,
    facts: dict[str, Any],
    trainer: Trainer | None = None,
) -> None:
    """Searches, scores, and writes everything into the folder.

    ``trainer`` tells where and how exactly the floor of a run's untrained network is embedded.
    """
    import numpy as np

    from visual_search.knn.device import Device
    from visual_search.retrieval.report import with_intervals
    from visual_search.runs.parts import progress_bar
    from visual_search.runs.results import answering, save_evaluation
    from visual_search.training.evaluation import evaluate_embeddings, index_place

    device, gpu = one_of("index.device", merged.index.device, get_args(Device)), 0
    if trainer is not None:
        device, gpu = index_place(device, trainer)
    selection = sides.selection
    evaluation: Evaluation = evaluate_embeddings(
        cached.catalog,
        protocol,
        sides,
        split=place.status()["query_split"],
        epoch=epoch,
        gallery_embeddings=np.ascontiguousarray(embeddings[selection.gallery_rows]),
        query_embeddings=np.ascontiguousarray(embeddings[selection.query_rows]),
        index_device=device,
        index_gpu=gpu,
        seconds_per_item=seconds_per_item,
    )
    evaluation = replace(evaluation, report=with_intervals(evaluation.report))
    if merged.floors:
        with progress_bar("Embedding the floors", " pictures") as advance:
            found = floors.measure(
                cached.catalog,
                cached.pictures,
                protocol,
                selection,
                device=trainer.strategy.root_device if trainer else "cpu",
                precision=trainer.precision_plugin if trainer else None,
                on_progress=advance,
            )
        evaluation = replace(evaluation, floors=found)
    index = evaluation.index
    facts["index"] = {
        "bytes": index.num_bytes,
        "bytes_per_item": index.bytes_per_item,
        **answering(index),
    }
    save_evaluation(place.folder, merged, cached.catalog, cached.pictures, evaluation, facts)
