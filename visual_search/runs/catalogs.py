"""A config's catalogue and its pictures, read and prepared under progress bars."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from visual_search.config.builders import build, one_of
from visual_search.config.schemas import Node, SplitConfig, TrainSchema
from visual_search.launcher import is_first_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.catalog.catalog import Catalog, Choice

_COLUMNS = ("item_id", "image", "image_pattern", "category", "group", "product", "split")
_SETTINGS = {
    "read with": ("data.separator", "data.encoding"),
    "columns:": tuple(f"data.{name}" for name in _COLUMNS),
}


def build_catalog(node: Node) -> Catalog:
    """Returns the catalogue of a data node, and prints what its reader chose by itself.

    Raises:
        ConfigError: The node is wrong.
        ValueError: The data cannot be read.
    """
    from visual_search.views.progress import progress_bar

    with progress_bar("Reading the catalogue", " files") as advance:
        catalog: Catalog = build("data", node, on_progress=advance)
    if is_first_process():
        for line in told(catalog.choices):
            print(f"{catalog.name}: {line}")
    return catalog


def told(choices: Sequence[Choice]) -> list[str]:
    """Returns what a reader found out, in lines: settings of its file, its columns, then the rest.

    Example:
        >>> from visual_search.catalog.catalog import Choice
        >>> found = [Choice("data.encoding", "cp1252", "no UTF-8", "cp1252")]
        >>> found += [Choice("", "line 1", "a title"), Choice("data.group", "SKU", "why", "SKU")]
        >>> for line in told(found):
        ...     print(line)
        read with data.encoding=cp1252 (no UTF-8)
        columns: data.group=SKU (why)
        line 1: a title
    """
    lines = []
    for what, keys in _SETTINGS.items():
        named = [str(one) for one in choices if one.key in keys and one.setting is not None]
        lines += [f"{what} {', '.join(named)}"] if named else []
    kept = {key for keys in _SETTINGS.values() for key in keys}
    return lines + [str(one) for one in choices if one.key not in kept or one.setting is None]


def with_splits(catalog: Catalog, data: Node, split: SplitConfig, outputs: str) -> Catalog:
    """Returns a catalogue with its splits; those that are drawn by group are kept in a file.

    Args:
        catalog: As read.
        data: Its node.
        split: How items without a split get one.
        outputs: Folder of all runs, in which the file lies.

    Raises:
        ValueError: No split can be drawn, or the file cannot be read.
    """
    from visual_search.catalog.kept_splits import keep_splits, kept_splits
    from visual_search.catalog.splits import assign_splits

    asked = {key: value for key, value in vars(split).items() if key not in ("kept", "allow_few")}
    if split.method != "stratified":
        return assign_splits(catalog, **asked)
    path = Path(split.kept) if split.kept else _place_of_splits(catalog, data, asked, outputs)
    assigned = assign_splits(catalog, **asked, kept=kept_splits(path))
    is_own = split.kept is None or not path.is_file()  # what is named is read and left as it is
    if is_own and is_first_process():
        keep_splits(path, assigned)
    return assigned


def _place_of_splits(catalog: Catalog, data: Node, asked: Node, outputs: str) -> Path:
    text = json.dumps([asked, data.get("group")], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.+-]+", "_", catalog.name)
    return Path(outputs) / "splits" / f"{name}-{digest}.csv"


def within_budget(catalog: Catalog, settings: TrainSchema) -> Catalog:
    """Returns a config's catalogue, splits assigned, limited to its budget."""
    from visual_search.catalog.splits import limit_items

    limits = vars(settings.loader.max_items_per_category)
    if any(limit is not None for limit in limits.values()):
        catalog = limit_items(catalog, limits, seed=settings.split.seed)
    return catalog


def check_left_out(node: Node, num_left_out: int, num_items: int) -> None:
    """Refuses data of which more than a tenth is left out, unless its config allows it.

    Args:
        node: The data's.
        num_left_out: Refused rows or pictures.
        num_items: The others.

    Raises:
        ValueError: Names the share, and how to allow it.
    """
    from visual_search.catalog.checks import MAX_LEFT_OUT, left_out

    if node.get("on_bad_item") != "skip_any" and num_left_out > MAX_LEFT_OUT * (
        num_items + num_left_out
    ):
        raise ValueError(
            f"{left_out(num_left_out, num_items)}; expected at most {MAX_LEFT_OUT:.0%}: mend them "
            "(visual_search.check names every one), or allow it by data.on_bad_item=skip_any"
        )


def prepare(
    catalog: Catalog, node: Node, *, size_px: int, fit: str, cache_dir: str
) -> CachedCatalog:
    """Returns the catalogue with its pictures decoded, under a progress bar.

    Args:
        catalog: Read already.
        node: Its data node, which says what becomes of a broken picture.
        size_px: What the network sees.
        fit: As `visual_search.catalog.images.Fit`.
        cache_dir: Where decoded pictures are kept.

    Raises:
        ConfigError: There is no such fit.
    """
    from visual_search.catalog.cache import cache_pictures
    from visual_search.catalog.images import Fit
    from visual_search.views.progress import progress_bar

    with progress_bar("Preparing pictures", " pictures") as advance:
        return cache_pictures(
            catalog,
            size_px=size_px,
            fit=one_of("pictures.fit", fit, get_args(Fit)),
            cache_dir=cache_dir,
            on_bad_item=node.get("on_bad_item", "error"),
            on_progress=advance,
        )
