"""Which group is where, kept in a file, so that items that come later move no group."""

from __future__ import annotations

import csv
from pathlib import Path

from visual_search.atomic import atomic_path
from visual_search.catalog.catalog import SPLITS, Catalog

COLUMNS = ["group", "split"]


def kept_splits(path: str | Path) -> dict[str, str]:
    """Returns the split of each group that a file keeps; nothing where there is no file.

    Args:
        path: A CSV with ``group`` and ``split``.

    Raises:
        ValueError: It holds something else.
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows = csv.reader(opened)
            head = next(rows, None)
            kept = {group: split for group, split in rows} if head == COLUMNS else None  # noqa: C416 - of two cells each
    except FileNotFoundError:
        return {}
    except (ValueError, csv.Error) as error:
        raise ValueError(_damaged(file, str(error))) from error
    if kept is None:
        raise ValueError(_damaged(file, f"its columns are {head}"))
    if unknown := set(kept.values()) - set(SPLITS):
        raise ValueError(_damaged(file, f"it names the split {min(unknown)!r}"))
    return kept


def keep_splits(path: str | Path, catalog: Catalog) -> None:
    """Writes where each group of a catalogue is, beside those that a file keeps already.

    Args:
        path: Written anew where a group is not in it yet; made with its folder where missing.
        catalog: Splits assigned.
    """
    kept = kept_splits(path)
    table = catalog.table[COLUMNS].drop_duplicates("group")
    new = dict(zip(table["group"].tolist(), table["split"].tolist(), strict=True))
    if new.keys() <= kept.keys():
        return
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows((new | kept).items())


def _damaged(path: Path, what: str) -> str:
    return (
        f"{path} keeps which group is in which split, and cannot be read: {what}; expected lines "
        f"of {','.join(COLUMNS)} with a split of {', '.join(SPLITS)}: mend it, or remove it to "
        "draw the split anew"
    )
