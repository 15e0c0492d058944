"""What the listings of DeepFashion's benchmarks share: counted rows, boxes, folders of pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from visual_search.catalog.readers.crops import BoxError
from visual_search.catalog.readers.listings import check_choice, find_file, read_text
from visual_search.catalog.readers.pixel_crops import pixel_box
from visual_search.catalog.readers.sources import FolderSource, ZipSource

Pictures = Literal["img", "img_highres"]

PARTITION = "list_eval_partition.txt"
# The numbers in the listings of boxes, as the data's README explains them
CLOTHES = {"1": "upper body", "2": "lower body", "3": "full body"}


def check_pictures(pictures: str, *, crop: bool) -> None:
    """Refuses a folder of pictures that is none, or to which the boxes do not belong.

    Raises:
        ValueError: It is another, or not ``img`` where pictures are to be cropped.
    """
    check_choice("data.pictures", pictures, get_args(Pictures))
    if crop and pictures != "img":
        raise ValueError(
            f"data.crop=true with data.pictures={pictures}: the boxes are pixels of the pictures "
            "in img; expected data.pictures=img, or data.crop=false"
        )


def rows_of(
    source: FolderSource | ZipSource, inner: str, columns: Sequence[str], benchmark: str
) -> Iterator[tuple[str, list[str]]]:
    """Yields place and fields of each row: a count, a header, then rows padded with blanks.

    Args:
        source: Where the listing lies.
        inner: Its path there.
        columns: Its header.
        benchmark: As ``the In-shop benchmark``, for messages.

    Raises:
        ValueError: It has another header, or another number of rows than it says.
    """
    lines = read_text(source, inner).split("\n")
    first, header = lines[0].strip(), lines[1].split() if len(lines) > 1 else []
    if not first.isdecimal() or header != list(columns):
        raise ValueError(
            f"{inner} begins with {first[:60]!r} and the header {header}; expected the number of "
            f"rows and {list(columns)}: take the file of {benchmark} as published"
        )
    rows = [(n, line) for n, line in enumerate(lines[2:], start=3) if line.strip()]
    if len(rows) != int(first):
        raise ValueError(
            f"{inner} says that it has {int(first)} rows, and has {len(rows)}; expected as many: "
            "it was cut off or changed, so fetch it again"
        )
    for number, line in rows:
        # from the right: only the path, the first field, may hold a space
        yield f"line {number}", line.strip().rsplit(maxsplit=len(columns) - 1)


def boxes_of(
    source: FolderSource | ZipSource, listing: str, columns: Sequence[str], benchmark: str
) -> dict[str, list[str]]:
    """Returns what stands in a listing of boxes behind the path of each picture.

    Args:
        source: Where the listing lies, at any depth.
        listing: Its name.
        columns: Its header.
        benchmark: As of `rows_of`.

    Raises:
        FileNotFoundError: There is no such listing.
        ValueError: As of `rows_of`.
    """
    inner = find_file(source, listing, f"unpack Anno/ of {benchmark}, or give crop=false")
    rows = rows_of(source, inner, columns, benchmark)
    return {fields[0]: fields[1:] for _, fields in rows if len(fields) == len(columns)}


def box_fragment(corners: Sequence[str], listing: str) -> tuple[str, str]:
    """Returns the fragment of a box that can be cut out, and the reason why there is none.

    Args:
        corners: Left, top, right, bottom as they stand in the listing; empty where it has none.
        listing: Its name.
    """
    if not any(corners):
        return "", f"there is no box for it in {listing}"
    if not all(re.fullmatch("[0-9]{1,9}", corner) for corner in corners):
        return "", f"the box in {listing} is {list(corners)}; expected four whole numbers"
    try:
        return pixel_box(*(int(corner) for corner in corners)), ""
    except BoxError as error:
        return "", str(error)


def base_of_pictures(source: FolderSource | ZipSource, pictures: str) -> str:
    """Returns what stands before ``img/`` in the paths of the pictures, as ``Img/``.

    Raises:
        FileNotFoundError: There is no such folder of pictures.
    """
    folder = f"/{pictures}/"
    bases = Counter(
        ("/" + name).partition(folder)[0] for name in source.names() if folder in "/" + name
    )
    if not bases:
        raise FileNotFoundError(
            f"there is no folder {pictures}/ with pictures in {source!r}; unpack "
            f"{pictures}.zip there, or name the other one by data.pictures"
        )
    base = bases.most_common(1)[0][0]
    return f"{base}/".removeprefix("/")
