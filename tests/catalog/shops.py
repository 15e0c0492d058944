"""What the tests of catalogues share: files and zips, small catalogues, refusals."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from visual_search.catalog.catalog import BadItemsError, Catalog, PictureSource

CHECKOUT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("VISUAL_SEARCH_SHARED", CHECKOUT.parent / "shared")) / "datasets"


def needs_shared(name: str) -> pytest.MarkDecorator:
    """Skips a test where real data does not lie beside the checkout."""
    return pytest.mark.skipif(not (SHARED / name).exists(), reason=f"{name} is not here")


def saved(root: Path, files: Mapping[str, bytes | str] | Iterable[str]) -> Path:
    """Writes files below a folder; where names alone are given, each file holds its name."""
    contents = files if isinstance(files, Mapping) else {name: name for name in files}
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def zipped(root: Path, path: Path, prefix: str = "") -> Path:
    """Packs all below a folder, empty folders too."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, prefix + file.relative_to(root).as_posix())
    return path


def zip_of(path: Path, members: Mapping[str, bytes | str] | Iterable[str]) -> Path:
    """Packs members of any names, as they are; names alone hold themselves."""
    contents = members if isinstance(members, Mapping) else {name: name for name in members}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def catalog_of(source: PictureSource | None = None, **columns: Sequence[str]) -> Catalog:
    """A catalogue; what is not given: ids i000, i001 ..., hats and shoes in turn, no split."""
    num = len(next(iter(columns.values())))
    ids = [f"i{place:03}" for place in range(num)]
    given = {"item_id": ids, "image": ids, "category": (["hats", "shoes"] * num)[:num]}
    given |= {"group": ids, "split": [""] * num} | columns
    return Catalog("toy", pd.DataFrame(given), source)  # type: ignore[arg-type]


def refuses(
    error: type[Exception],
    message: str,
    call: Callable[..., object],
    *given: object,
    **more: object,
) -> None:
    """Checks that a call is refused, with what its caller needs in the message."""
    with pytest.raises(error, match=message):
        call(*given, **more)


def one_refused(
    reason: str, read: Callable[..., Catalog], *given: object, **more: object
) -> list[str]:
    """Checks that one bad item is an error that names it, and is left out by ``skip``.

    Returns:
        The ids of the items that are left.
    """
    with pytest.raises(BadItemsError, match=r"^1 bad item\(s\)") as caught:
        read(*given, **more)
    (item,) = caught.value.refused
    assert re.search(reason, f"{item.item_id}: {item.reason}"), item
    catalog = read(*given, **more, on_bad_item="skip")
    assert catalog.refused == (item,)
    return list(catalog.table["item_id"])
