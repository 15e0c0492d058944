"""Embeddings, or any callable that makes them, measured by the same protocols as a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.api.settings import settings_of
from visual_search.api.trained import Report

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from visual_search.catalog.catalog import Catalog
    from visual_search.runs.embedders import Embedder


def evaluate(
    embeddings: NDArray[np.floating[Any]] | Embedder,
    items: Catalog | pd.DataFrame,
    *overrides: str,
    protocol: str = "gallery_query",
    name: str | None = None,
) -> Report:
    """Measures embeddings: metrics by category, intervals, and what learns nothing beside them.

    What it leaves lies in ``outputs/<name>/<hash>``; what was measured before is not again.

    Args:
        embeddings: ``[N, D]``, a row for every item in their order; or a callable that takes a list
            of Pillow images (RGB, upright, at their own size) and returns ``[B, D]``, an array or a
            tensor. It sees those pictures alone that the protocol needs.
        items: A catalogue (`open_catalog`), or a table with the columns ``item_id``, ``image`` (a
            path) and ``category``; ``group``, ``split`` and attributes where there are some.
        overrides: Further settings, as behind ``python -m visual_search.evaluate``, such as
            ``protocol.relevance=[baseColour]`` or ``query_split=val``.
        protocol: Of ``conf/protocol``: who searches where.
        name: Of what is measured; by default the callable's own.

    Raises:
        ConfigError: A setting is wrong.
        ValueError: Rows and items differ in number, a value is not finite, or the protocol cannot
            be met.
    """
    import numpy as np

    from visual_search.catalog.catalog import Catalog
    from visual_search.evaluate import measure_given, settings_of_given
    from visual_search.runs.embedders import given_of, made_by
    from visual_search.runs.parts import Parts

    name = name or _name_of(embeddings)
    asked = settings_of("evaluate", f"protocol={protocol}", *overrides)
    asked.name = asked.name or name
    parts = Parts(settings_of_given(asked))
    parts.whole = items if isinstance(items, Catalog) else catalog_of(items, name)
    if callable(embeddings):
        given = made_by(embeddings, parts, asked.query_split, name)
    else:
        values, ids = np.asarray(embeddings), parts.whole.table["item_id"].tolist()
        if values.ndim != 2 or len(values) != len(ids):
            raise ValueError(
                f"embeddings have shape {values.shape}; expected [{len(ids)}, D]: a row for every "
                "item, in their order"
            )
        given = given_of(ids, values, name)
    return Report(measure_given(parts, given, asked).run.folder)


def _name_of(embeddings: object) -> str:
    if not callable(embeddings):
        return "embeddings"
    owner = getattr(embeddings, "__self__", embeddings)
    found = getattr(owner, "__name__", type(owner).__name__)
    return "embedder" if found == "<lambda>" else str(found)


def catalog_of(table: pd.DataFrame, name: str) -> Catalog:
    """Returns the catalogue of a table whose pictures are files.

    Args:
        table: Columns ``item_id``, ``image`` and ``category``; others where there are some.
        name: Of the catalogue.

    Raises:
        ValueError: A column is missing, or a value cannot be an item's.
    """
    from visual_search.catalog.catalog import Catalog
    from visual_search.catalog.readers.sources import FolderSource

    missing = [column for column in ("item_id", "image", "category") if column not in table]
    if missing:
        raise ValueError(
            f"the items lack the column(s) {missing}; expected item_id, image (the picture's path, "
            f"for what learns nothing) and category; they have {list(table.columns)}"
        )
    texts = table.astype(str).reset_index(drop=True)
    texts = texts.mask(table.isna().reset_index(drop=True), "")
    paths = [os.path.abspath(path) for path in texts["image"]]
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else "."
    texts["image"] = [Path(os.path.relpath(path, root)).as_posix() for path in paths]
    if "group" not in texts:
        texts["group"] = texts["item_id"]
    texts["group"] = texts["group"].where(texts["group"] != "", texts["item_id"])
    if "split" not in texts:
        texts["split"] = ""
    return Catalog(name, texts, FolderSource(root))
