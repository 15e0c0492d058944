"""Makes a finished run into a search bundle: encoder as ONNX, index, items, model card.

``python -m visual_search.export run=PATH out=DIR``; ``--help`` lists what can be set.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.atomic import scratch_folder
from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError, told_as_config
from visual_search.config.schemas import ExportSchema, TrainSchema
from visual_search.reading import SAVED, number_in, read_table
from visual_search.runs.finished import finished_run
from visual_search.runs.index_settings import check_index_settings
from visual_search.runs.moved import telling_moved_data
from visual_search.runs.run import Run
from visual_search.wording import file_size, holding, many, number, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from visual_search.bundle.encoder import OnnxEncoder
    from visual_search.bundle.items import BundleItems
    from visual_search.bundle.manifest import BundleManifest
    from visual_search.bundle.model_card import BundleFacts
    from visual_search.catalog.cache import CachedCatalog
    from visual_search.models.export_check import ExportCheck
    from visual_search.runs.parts import Parts
    from visual_search.training.module import EncoderModule

BUNDLE = "bundle"  # folder within the run's
ITEMS = ("seen", "all", "gallery")


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("export", export_command)


def export_command(settings: ExportSchema) -> None:
    """Exports the run that the composed config names, and prints where the bundle lies."""
    print_export(export_run(settings))


@dataclass(frozen=True)
class Exported:
    """A new bundle.

    Attributes:
        folder: Where it lies.
        manifest: What it says about itself.
        check: How far the exported encoder is from PyTorch.
        headline: What the run measured, as a sentence.
        left_out: What of the catalogue is not in the bundle, a sentence each.
        again: The headline's mean with the bundle's embeddings, by the run's own queries; None
            where the bundle holds other items.
        num_bytes: Size of all its files.
        num_products: Products that can be found; None where each has one picture, an item.
        an_item: The id of one that can be asked for.
    """

    folder: Path
    manifest: BundleManifest
    check: ExportCheck
    headline: str
    left_out: tuple[str, ...]
    again: float | None
    num_bytes: int
    num_products: int | None = None
    an_item: str = ""


def export_run(settings: ExportSchema) -> Exported:
    """Exports a finished run's encoder, embeds the items with it, and writes the bundle.

    Args:
        settings: The composed ``conf/export.yaml``.

    Raises:
        ConfigError: No run is named, or it is not finished, or a setting is wrong.
        ValueError: The exported encoder differs from PyTorch's, or the data cannot be read.
        FileExistsError: The folder holds something already.
    """
    from visual_search.bundle.creating import create_bundle
    from visual_search.bundle.encoder import OnnxEncoder, embed_rows
    from visual_search.bundle.items import BundleItems
    from visual_search.catalog.thumbnails import thumbnails
    from visual_search.models.exporting import export_encoder
    from visual_search.runs.catalogs import prepare
    from visual_search.runs.parts import Parts, load_module, quieten
    from visual_search.views.progress import progress_bar

    quieten()
    _check_settings(settings)
    run = finished_run(settings.run)
    folder = Path(settings.out or run.folder / BUNDLE)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty; expected a new folder: give out=DIR, or delete it"
        )
    summary = run.summary()
    parts = Parts(_of_run(run.settings(), settings))
    merged = parts.settings
    with telling_moved_data("export", run, merged.data, settings.data):
        everything = parts.whole
    module = load_module(run)
    if settings.data or settings.items == "all":
        cached = prepare(everything, merged.data, **vars(merged.pictures))
    else:
        cached = parts.cached
    rows = _rows(cached, run, settings)
    left_out = _left_out(len(everything), cached, rows)
    name = settings.name or run.folder.parent.name
    with scratch_folder(folder.parent, folder.name) as scratch:
        facts = {"experiment": run.folder.parent.name, "run": run.folder.name}
        fit = merged.pictures.fit
        exported = export_encoder(module.model, module.head, scratch, facts=facts, fit=fit)
        encoder = OnnxEncoder(exported.onnx.read_bytes(), num_threads=settings.num_threads)
        with progress_bar("Embedding", " pictures") as advance:
            embeddings = embed_rows(encoder, cached.pictures, rows, advance)
        check = _checked(module, encoder, cached, rows, embeddings, settings.num_checked)
        with progress_bar("Making thumbnails", " pictures") as advance:
            small = thumbnails(cached.catalog, rows, settings.thumbnail_px, advance)
        items = BundleItems(
            item_ids=cached.catalog.table["item_id"].iloc[rows].tolist(),
            columns=_columns(cached, rows),
            embeddings=embeddings,
            thumbnails=small,
        )
        again = _measured_again(parts, cached, rows, embeddings, settings)
        of_products = _product_column(items)
        content = _facts(run, summary, check, again)
        content["left_out"] = list(left_out)
        with progress_bar("Building the index", " items") as advance:
            manifest = create_bundle(
                folder,
                name=name,
                encoder_onnx=exported.onnx,
                items=items,
                kind=settings.index,
                target_recall=settings.target_recall,
                product_column=of_products,
                facts=content,
                files=_files(run, name, exported.weights, content, items, settings.index),
                num_threads=settings.num_threads,
                on_progress=advance,
            )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    headline = str(summary.get("standing", ""))
    num_products, first = _num_products(items), items.item_ids[0]
    return Exported(folder, manifest, check, headline, left_out, again, size, num_products, first)


def _left_out(num_all: int, cached: CachedCatalog, rows: NDArray[np.int64]) -> tuple[str, ...]:
    """Says what of the catalogue will not be found, and why."""
    refused = cached.catalog.refused
    num_within = len(cached.catalog) + len(refused)
    reasons = (
        (num_all - num_within, num_all, "beyond the run's budget; items=all takes them in"),
        (
            len(cached.catalog) - len(rows),
            len(cached.catalog),
            "not in the run's gallery; items=seen takes them in",
        ),
    )
    lines = [
        f"Left out: {num:,} of {many(whole, 'item')}: {why}." for num, whole, why in reasons if num
    ]
    if refused:
        lines.append(f"Left out: {many(len(refused), 'bad item')}:")
        lines += [f"  {item.item_id!r} ({item.image}): {item.reason}" for item in refused[:10]]
        if len(refused) > 10:
            lines.append(f"  ... and {len(refused) - 10:,} more")
    return tuple(lines)


def _check_settings(settings: ExportSchema) -> None:
    """Refuses what would fail only after the whole catalogue was embedded."""
    from visual_search.bundle.remote import check_is_folder

    if settings.items not in ITEMS:
        raise ConfigError(
            f"items={settings.items}; expected one of {', '.join(ITEMS)}: set items=seen"
        )
    if settings.items == "gallery" and settings.data:
        raise ConfigError(
            "items=gallery with data of its own; expected items=all: a gallery is chosen by the "
            "run's protocol on the run's data"
        )
    for name, usual in (("thumbnail_px", 192), ("num_checked", 64)):
        given = getattr(settings, name)
        if given < 1:
            raise ConfigError(f"{name}={given}; expected at least 1: set {name}={usual}")
    check_index_settings(settings.index, settings.target_recall, settings.num_threads)
    with told_as_config():
        check_is_folder(settings.out or "")


def _of_run(own: TrainSchema, settings: ExportSchema) -> TrainSchema:
    """Returns a run's settings, with other data where the export names some; its budget is kept."""
    from visual_search.runs.moved import merged_settings
    from visual_search.runs.parts import protocol_in_full

    merged = merged_settings(own, settings.data, None, settings.pictures.cache_dir)
    merged.loader = own.loader
    merged.protocol = protocol_in_full(own.protocol)
    merged.index.device = "cpu"  # as the bundle will be searched
    return merged


def _rows(cached: CachedCatalog, run: Run, settings: ExportSchema) -> NDArray[np.int64]:
    """Returns the catalogue rows of the items that can be found."""
    import numpy as np

    if settings.items != "gallery":
        return np.arange(len(cached.catalog), dtype=np.int64)
    ids = set(read_table(run.folder / "index" / "items.parquet", SAVED)["item_id"])
    return np.flatnonzero(cached.catalog.table["item_id"].isin(ids)).astype(np.int64)


def _product_column(items: BundleItems) -> str | None:
    """Returns the column that says whose picture an item is, where it says so of every one."""
    from visual_search.catalog.identity import PRODUCT, is_by_picture

    products = items.columns.get(PRODUCT)
    return PRODUCT if products is not None and is_by_picture(items.item_ids, products) else None


def _columns(cached: CachedCatalog, rows: NDArray[np.int64]) -> dict[str, list[str]]:
    """Returns what items can be filtered by: the category and the attributes."""
    table = cached.catalog.table.iloc[rows]
    return {name: table[name].tolist() for name in ("category", *cached.catalog.attributes)}


def _checked(
    module: EncoderModule,
    encoder: OnnxEncoder,
    cached: CachedCatalog,
    rows: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    num_checked: int,
) -> ExportCheck:
    """Compares the exported encoder with PyTorch's, on pictures spread over the items."""
    import numpy as np

    from visual_search.models.export_check import check_export

    places = np.unique(np.linspace(0, len(rows) - 1, num_checked).astype(np.int64))
    pictures = cached.pictures[rows[places]]
    return check_export(module.model, module.head, encoder.embed, pictures, gallery=embeddings)


def _measured_again(
    parts: Parts,
    cached: CachedCatalog,
    rows: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    settings: ExportSchema,
) -> float | None:
    """Returns the headline's micro mean, with the bundle's embeddings and the run's own queries."""
    import pandas as pd

    from visual_search.runs.measuring import Embedded, evaluated

    if settings.data or len(rows) < len(cached.catalog):
        return None
    ids, of_run = cached.catalog.table["item_id"], parts.cached.catalog.table["item_id"]
    held = embeddings[pd.Index(ids).get_indexer(of_run)]
    evaluation = evaluated(parts, parts.sides("test"), "test", Embedded(held))
    summary = evaluation.report.summary
    return number_in(summary, f"micro_{summary['headline']['mean']}")


def _facts(
    run: Run, summary: Mapping[str, object], check: ExportCheck, again: float | None
) -> BundleFacts:
    """Returns what a bundle says about the run that it comes from, as plain values."""
    from visual_search.runs.run import environment

    kept = (
        "headline", "standing", "rules", "definitions", "intervals", "floors", "products",
        "num_queries", "num_queries_scored", "num_gallery", "num_categories", "num_training",
        "epochs", "precision", "device", "device_name", "weights", "num_parameters",
    )  # fmt: skip
    facts = {name: summary[name] for name in kept if name in summary}
    facts |= {
        "experiment": run.folder.parent.name,
        "run": run.folder.name,
        "catalog": run.status().get("catalog", ""),
        "export_check": dataclasses.asdict(check),
        "measured_again": again,
        "packages": environment()["packages"],
    }
    plain: BundleFacts = json.loads(json.dumps(facts))
    return plain


def _files(
    run: Run, name: str, weights: Path, facts: BundleFacts, items: BundleItems, kind: str
) -> dict[str, Path | bytes | str]:
    from visual_search.bundle.model_card import model_card, requirements
    from visual_search.runs.serving_wheel import serving_wheel

    wheel = serving_wheel()
    counts = dict(sorted(Counter(items.columns["category"]).items()))
    files: dict[str, Path | bytes | str] = {
        "encoder.safetensors": weights,
        "model_card.md": model_card(
            name, facts, counts, tuple(items.columns), _num_products(items)
        ),
        "requirements.txt": requirements(kind, wheel.requirement),
        wheel.file: wheel.content,
    }
    if (report := run.folder / "report.html").is_file():
        files["report.html"] = _without_places(report.read_text(encoding="utf-8"), run)
    return files


def _num_products(items: BundleItems) -> int | None:
    column = _product_column(items)
    return None if column is None else len(set(items.columns[column]))


def _without_places(page: str, run: Run) -> str:
    """Returns a run's page without the places that an earlier version wrote into it."""
    from html import escape

    from visual_search.runs.places import override_without_places, without_place

    command = run.environment().get("command")
    words = command if isinstance(command, list) else []  # a newer one is a line without places
    pairs = {str(word): override_without_places(str(word)) for word in words}
    pairs |= {value: without_place(value) for value in _texts(run.config())}
    longest_first = sorted((text for text in pairs if pairs[text] != text), key=len, reverse=True)
    for text in longest_first:
        page = page.replace(escape(text), escape(pairs[text]))
    return page


def _texts(settings: object) -> Iterator[str]:
    if isinstance(settings, Mapping | list):
        for value in settings.values() if isinstance(settings, Mapping) else settings:
            yield from _texts(value)
    elif isinstance(settings, str) and settings.strip():
        yield settings


def print_export(exported: Exported) -> None:
    """Prints where the bundle lies, what was checked, and what to do with it."""
    from rich import print as rich_print
    from rich.markup import escape

    from visual_search.knn.plan import SearchPlan
    from visual_search.retrieval.comparability import in_override

    folder, check = exported.folder, exported.check
    plan = SearchPlan.from_json(exported.manifest.index.plan)
    print(f"Bundle {folder}: {file_size(exported.num_bytes)}")
    print(
        f"Encoder: {many(check.num_pictures, 'picture')} checked: off from PyTorch by at most "
        f"{check.largest_difference:.1e} (allowed {check.allowed_difference:.1e}), the "
        f"same {many(check.k, 'neighbour')} found."
    )
    print(
        f"Index: {holding(exported.manifest.num_rows, exported.num_products)}; {plan.sentence()}."
    )
    for line in exported.left_out:
        print(shown(line))
    if exported.headline:
        rich_print(escape(f"The run: {exported.headline}"))
    if exported.again is not None:
        print(f"With the bundle's embeddings, computed in float32: {number(exported.again)}")
    bundle = shlex.quote(f"bundle={folder}")
    item = shlex.quote(f"item={in_override(exported.an_item)}")
    print("\nSearch, by an item or with image=PICTURE, and serve:")
    print(f"  python -m visual_search.search {bundle} {item}")
    print(f"  python -m visual_search.serve {bundle}")


if __name__ == "__main__":
    main()
