"""What a measurement leaves in its folder: embeddings, numbers, floors, near-duplicates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from visual_search.config.schemas import TrainSchema
from visual_search.reading import (
    SAVED,
    FoundLeaks,
    MeasuredFloor,
    NearCounts,
    OverProducts,
    SideLeaks,
    Summary,
    ends_of,
    number_in,
    read_table,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from lightning import Trainer
    from lightning.pytorch.loggers import Logger
    from numpy.typing import NDArray

    from visual_search.catalog.cache import CachedCatalog, Pictures
    from visual_search.catalog.catalog import Catalog
    from visual_search.retrieval.leaks import Leaks
    from visual_search.retrieval.report import RetrievalReport
    from visual_search.runs.parts import Parts
    from visual_search.runs.run import Run
    from visual_search.training.evaluation import Evaluation, Floor
    from visual_search.training.query_gallery import Sides
    from visual_search.views.duplicates import DuplicatePair

MAX_LISTED_LEAKS = 20  # in summary.json; all are counted
MAX_DRAWN_PAIRS = 24

# Limits at which both measures together find the same picture: 9 of 10 pairs with the trained
# baseline on the complete-the-look crops, 14 of 16 with plus_layer; either one alone finds more
# pairs that only look alike (of 28 px silhouettes, nearly all).
NEAR_BITS = 10
NEAR_RELATIVE_DISTANCE = 0.005
NEAR_DEFINITION = (
    f"A gallery item is a near-duplicate of a query when their perceptual hashes differ in at most "
    f"{NEAR_BITS} of 64 bits and it is among the query's nearest items at a squared distance of at "
    f"most {NEAR_RELATIVE_DISTANCE} of the median of random pairs."
)


def save_results(run: Run, parts: Parts, trainer: Trainer, logged: Mapping[str, float]) -> None:
    """Writes what a trained run leaves, and the settings with the numbers to the loggers."""
    from visual_search.runs.machine import device_sentence, device_summary
    from visual_search.runs.run import PROJECTION
    from visual_search.training.module import weights_fingerprint

    module, evaluation = parts.module, parts.module.evaluation
    assert evaluation is not None
    *earlier, device = run.computed_on()
    weights = weights_fingerprint(module.model)
    evaluation.index.save(
        run.folder / "index",
        model_hash=weights,
        preprocessing_hash=module.preprocessing.fingerprint(),
        embedding_hash=module.head.fingerprint(),
    )
    module.head.save(run.folder / PROJECTION)
    save_trained_items(run.folder, parts.cached)
    facts: dict[str, object] = {
        "val_loss": logged.get("val/loss"),
        "test_loss": logged.get("test/loss"),
        "loss_name": module.objective.error_name,
        "embedding_dim": module.head.embedding_dim,
        "num_parameters": sum(p.numel() for p in module.parameters()),
        "epochs": trainer.current_epoch,
        "num_training": len(parts.datamodule.rows("train")),
        "weights": weights,
        **device_summary(device),
    }
    if earlier:
        facts["computed_before_on"] = [device_sentence(device) for device in earlier]
    summary = save_evaluation(run.folder, parts, evaluation, facts)
    finals = _finals(summary, logged)
    for logger in trainer.loggers:
        _log_settings(logger, _choices(parts.settings, summary), finals)
        logger.save()


def save_evaluation(
    folder: Path, parts: Parts, evaluation: Evaluation, facts: Mapping[str, object]
) -> Summary:
    """Writes embeddings, numbers, floors and near-duplicates of one measurement.

    Args:
        folder: A run's, or one of its further evaluations'.
        parts: Of what was measured.
        evaluation: With its floors and intervals.
        facts: What else the summary should say: epochs, device, ...

    Returns:
        The summary, as written into ``metrics/summary.json``.
    """
    from visual_search.retrieval.measure import identity
    from visual_search.retrieval.report_files import save_report
    from visual_search.runs.places import refused_without_places, settings_without_places
    from visual_search.training.evaluation import save_embeddings

    settings, catalog = parts.settings, parts.cached.catalog
    save_embeddings(evaluation, catalog, folder / "embeddings")
    report, index = evaluation.report, evaluation.index
    floors = _floor_lines(folder, report, evaluation.floors)
    same = identity(
        catalog.table,
        evaluation.protocol,
        evaluation.sides.selection,
        catalog.source.content_keys,
    )
    rules = {name: value for name, value in settings.protocol.items() if name != "_target_"}
    own: Summary = {
        "index": {
            "bytes": index.num_bytes,
            "bytes_per_item": index.bytes_per_item,
            "device": index.device,
            "device_reason": index.device_reason,
            "gpu_failed": index.gpu_failed,
        },
        "query_split": evaluation.split,
        "embedding_ms_per_item": 1000 * evaluation.seconds_per_item,
        "refused": refused_without_places(catalog.refused),
        "choices": [settings_without_places(vars(choice)) for choice in catalog.choices],
        "identity": {"data": catalog.name, **same, "protocol_settings": rules},
        "catalog_fingerprint": catalog.fingerprint(),
        "leaks": _leaks(evaluation),
        "floors": floors,
        "standing": _standing(report, floors),
    }
    products = _over_products(catalog, evaluation)
    if products is not None:
        own["products"] = products
    if settings.near_duplicates:
        own["near_duplicates"] = _near_duplicates(folder, parts.cached, evaluation)
    summary = cast("Summary", {**report.summary, **facts, **own})
    save_report(replace(report, summary=summary), folder / "metrics")
    return summary


def save_trained_items(folder: Path, cached: CachedCatalog) -> None:
    """Writes which items were trained on (``metrics/trained_items.parquet``): ids, pixel keys."""
    from visual_search.atomic import atomic_path
    from visual_search.catalog.duplicates import pixel_keys

    rows = cached.catalog.rows_of_split("train")
    table = cached.catalog.table.iloc[rows][["item_id", "group"]].reset_index(drop=True)
    table["pixels"] = pixel_keys(cached.pictures, rows)
    with atomic_path(folder / "metrics" / "trained_items.parquet") as temporary:
        table.to_parquet(temporary, index=False)


def num_trained_on(folder: Path, pictures: Pictures, sides: Sides) -> int | None:
    """Counts the queries whose very pixels a run was trained on; None where it did not say.

    Args:
        folder: The run's.
        pictures: Prepared as the run's.
        sides: Who asks.
    """
    from visual_search.catalog.duplicates import pixel_keys

    path = folder / "metrics" / "trained_items.parquet"
    if not path.is_file():
        return None
    trained = set(read_table(path, SAVED, columns=["pixels"])["pixels"])
    return sum(key in trained for key in pixel_keys(pictures, sides.selection.query_rows))


def _floor_lines(
    folder: Path, report: RetrievalReport, floors: tuple[Floor, ...]
) -> list[MeasuredFloor]:
    """Writes the floors' values, and gives one plain dict a floor for the summary."""
    from visual_search.atomic import atomic_path
    from visual_search.retrieval.floor_comparison import floor_differences
    from visual_search.retrieval.report_files import save_table
    from visual_search.training.floors import floors_per_category, floors_per_query

    if not floors:
        return []
    per_query = floors_per_query(floors)
    with atomic_path(folder / "metrics" / "floors.parquet") as temporary:
        per_query.to_parquet(temporary, index=False)
    save_table(floors_per_category(floors), folder / "metrics" / "floors_per_category.csv")
    column = report.summary["headline"]["column"]
    measured = floor_differences(report.per_query, per_query, column).to_dict("records")
    lines: list[MeasuredFloor] = []
    for floor, line in zip(floors, measured, strict=True):
        of_all = floor.report.summary.items()
        by_name = {name: mean for name, mean in of_all if name.startswith(("micro_", "macro_"))}
        called: MeasuredFloor = {
            "name": floor.name,
            "title": floor.title,
            "dim": floor.dim,
            "definition": floor.definition,
        }
        lines.append(cast("MeasuredFloor", {**called, **by_name, **line}))
    return lines


def _standing(report: RetrievalReport, floors: list[MeasuredFloor]) -> str:
    import pandas as pd

    from visual_search.retrieval.floor_comparison import (
        headline_statistic,
        right_by_definition,
        standing,
    )
    from visual_search.wording import as_float, rough_text

    headline = report.summary["headline"]
    if said := right_by_definition(report.summary):
        return said
    statistic = headline_statistic(headline["title"])
    ends = ends_of(report.summary, statistic)
    return standing(
        headline["title"],
        number_in(report.summary, f"{statistic}_{headline['mean']}"),
        (as_float(ends["low"]), as_float(ends["high"])),
        pd.DataFrame(floors),
        titles={floor["name"]: floor["title"] for floor in floors},
        rough=rough_text(ends),
    )


def _over_products(catalog: Catalog, evaluation: Evaluation) -> OverProducts | None:
    """Returns the headline over products, the floors' beside it; None where there are none."""
    from visual_search.retrieval.floor_comparison import (
        floor_differences,
        right_by_definition,
        standing,
    )
    from visual_search.retrieval.products import find_products, over_products
    from visual_search.wording import rough_text

    scores = find_products(
        evaluation.index,
        catalog.table,
        evaluation.protocol,
        evaluation.sides.selection,
        evaluation.query_embeddings,
    )
    if scores is None:
        return None
    found = over_products(scores)
    beside = {floor: floor.products for floor in evaluation.floors}
    values = {
        floor.name: products.per_product["value"] for floor, products in beside.items() if products
    }
    if not values or right_by_definition(evaluation.report.summary):
        return found
    table = scores.per_product[["query_id"]].assign(**values)
    measured = floor_differences(scores.per_product, table, "value", statistic="micro")
    titles = {floor.name: floor.title for floor in evaluation.floors}
    lines = [{"title": titles[str(line["name"])], **line} for line in measured.to_dict("records")]
    ends = found["low"], found["high"]
    said = standing(
        found["title"], found["mean"], ends, measured, titles=titles, rough=rough_text(found)
    )
    return {**found, "floors": cast("list[MeasuredFloor]", lines), "standing": said}


def _leaks(evaluation: Evaluation) -> FoundLeaks:
    """Returns what both sides share, as plain values."""
    found: FoundLeaks = {
        "on_leak": evaluation.protocol.on_leak,
        "num_dropped": evaluation.sides.num_dropped,
    }
    if (leaks := evaluation.sides.leaks) is not None:
        found["between_sides"] = _listed(leaks)
    if (leaks := evaluation.sides.trained_leaks) is not None:
        found["with_training"] = _listed(leaks)
    return found


def _listed(leaks: Leaks) -> SideLeaks:
    return {
        "num_pairs": {str(kind): num for kind, num in leaks.num_pairs.items()},
        "num_queries": len(leaks.query_ids),
        "pairs": [list(pair) for pair in leaks.pairs[:MAX_LISTED_LEAKS]],
    }


def _near_duplicates(folder: Path, cached: CachedCatalog, evaluation: Evaluation) -> NearCounts:
    """Looks for near-duplicates between the sides, lists and draws them."""
    from visual_search.catalog.duplicates import perceptual_hashes
    from visual_search.retrieval.near_duplicates import EmbeddedPictures, near_duplicates
    from visual_search.retrieval.report_files import save_table
    from visual_search.views.duplicates import duplicate_pairs
    from visual_search.views.figures import save_figure

    rows = {"gallery": evaluation.gallery_rows, "queries": evaluation.query_rows}
    ids = cached.catalog.table["item_id"].to_numpy(dtype=object)
    hashes = {name: perceptual_hashes(cached.pictures, of) for name, of in rows.items()}
    per_query = evaluation.report.per_query
    found = near_duplicates(
        ids[rows["gallery"]].tolist(),
        hashes["gallery"],
        ids[rows["queries"]].tolist(),
        hashes["queries"],
        embedded=EmbeddedPictures(
            evaluation.gallery_embeddings,
            evaluation.query_embeddings,
            per_query["neighbour_ids"].tolist(),
            per_query["neighbour_squared_distances"].tolist(),
        ),
        max_bits=NEAR_BITS,
        max_relative_distance=NEAR_RELATIVE_DISTANCE,
        max_listed=100_000,
    )
    near = found.table[found.table["by"] == "both"].reset_index(drop=True)
    save_table(near, folder / "metrics" / "near_duplicates.csv")
    pairs = _pairs(near, cached)
    if pairs:
        figure = duplicate_pairs(pairs, len(near))
        save_figure(figure, folder / "figures" / "near_duplicates.png")
    return {
        "definition": NEAR_DEFINITION,
        "num_pairs": len(near),
        "num_queries": int(near["query_id"].nunique()),
        "num_by_hash_alone": found.num_pairs["hash"],
        "num_by_embedding_alone": found.num_pairs["embedding"],
    }


def _pairs(near: pd.DataFrame, cached: CachedCatalog) -> list[DuplicatePair]:
    """Returns the closest pairs with their pictures."""
    from visual_search.views.duplicates import DuplicatePair

    row_of = {item_id: row for row, item_id in enumerate(cached.catalog.table["item_id"])}
    categories = cached.catalog.table["category"].to_numpy(dtype=object)
    pairs = []
    for line in near.head(MAX_DRAWN_PAIRS).to_dict("records"):
        query, item = row_of[line["query_id"]], row_of[line["gallery_id"]]
        images: NDArray[np.uint8] = cached.pictures[[query, item]]
        pairs.append(
            DuplicatePair(
                query_image=images[0],
                query_label=str(line["query_id"]),
                query_category=str(categories[query]),
                gallery_image=images[1],
                gallery_label=str(line["gallery_id"]),
                gallery_category=str(categories[item]),
                hash_bits=int(line["hash_bits"]),
                relative_squared_distance=float(line["relative_squared_distance"]),
            )
        )
    return pairs


def _finals(summary: Summary, logged: Mapping[str, float]) -> dict[str, float]:
    """Returns the numbers that runs are compared by in the loggers."""
    headline, k = summary["headline"]["mean"], summary["k"]
    names = (f"test/{headline}", f"test/macro_{headline}", f"test/precision_at_{k}",
             "test/loss", "val/loss")  # fmt: skip
    finals = {f"final/{name}": logged[name] for name in names if name in logged}
    floors = [number_in(floor, f"micro_{headline}") for floor in summary["floors"]]
    if any(map(math.isfinite, floors)):
        finals["final/best_floor"] = max(filter(math.isfinite, floors))
    return finals


def _choices(settings: TrainSchema, summary: Summary) -> dict[str, object]:
    """Returns what one compares runs by; the whole config lies in the run's folder."""
    return {
        "model": str(settings.model["_target_"]).rpartition(".")[2],
        "objective": str(settings.objective["_target_"]).rpartition(".")[2],
        "data": str(settings.data["_target_"]).rpartition(".")[2],
        "protocol": summary["identity"]["protocol_name"],
        "seed": settings.seed,
        "epochs": summary["epochs"],
        "batch_size": settings.loader.batch_size,
        "learning_rate": settings.training.learning_rate,
        "training_pictures": summary["num_training"],
        "embedding_dim": summary["embedding_dim"],
        "precision": summary["precision"],
        "fit": settings.pictures.fit,
    }


def _log_settings(logger: Logger, choices: dict[str, object], finals: dict[str, float]) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(choices, finals)  # shows in TensorBoard's HParams tab
    else:
        logger.log_hyperparams(choices)
        logger.log_metrics(finals)
