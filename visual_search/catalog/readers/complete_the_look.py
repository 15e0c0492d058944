"""Complete the Look: item boxes on collage boards, as Pinterest published them (arXiv 2006.10792).

``raw_train.tsv`` and ``raw_test.tsv`` of
https://github.com/eileenforwhat/complete-the-look-dataset hold one box a line: the board's
signature, the box as fractions of the board's picture (x, y, width, height from the top left) and
a label. The header is separated by spaces, the rows by tabs. The pictures are not part of it; each
is fetched by its signature, see `picture_url`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from visual_search import builder
from visual_search.catalog.catalog import Catalog, RefusedItem
from visual_search.catalog.readers import OnBadItem, check_on_bad_item, conclude
from visual_search.catalog.readers.crops import Box, BoxError, CropSource, crop_name
from visual_search.catalog.readers.pinterest import (
    check_image_pattern,
    image_name,
    open_pictures,
    read_text,
    signature_problem,
)

Split = Literal["", "train", "val", "test"]

COLUMNS = (
    "image_signature",
    "bounding_x",
    "bounding_y",
    "bounding_width",
    "bounding_height",
    "label",
)

# float() alone would also take "nan", "1_000" and digits of other scripts
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class BoardBox:
    """One item on a board.

    Attributes:
        item_id: The board's signature and the number of the box on it, ``<signature>-<number>``,
            counted from 1 over all rows of the file, whether good, sampled or not.
        signature: The board.
        box: Where on the board's picture.
        label: The category, as published.
        place: Where it stands in the file, as ``line 12``.
    """

    item_id: str
    signature: str
    box: Box
    label: str
    place: str


@dataclass(frozen=True)
class BoardBoxes:
    """What a file says, without its pictures.

    Attributes:
        boxes: The good rows, in the file's order.
        refused: The others, with the reason.
    """

    boxes: tuple[BoardBox, ...]
    refused: tuple[RefusedItem, ...]

    @property
    def signatures(self) -> list[str]:
        """The boards with a good row, each once, in the file's order."""
        return list(dict.fromkeys(box.signature for box in self.boxes))


@builder("data")
def complete_the_look(
    path: str | os.PathLike[str],
    pictures: str | os.PathLike[str] | None,
    image_pattern: str = "{signature}.jpg",
    split: Split = "",
    max_rows: int | None = None,
    seed: int = 0,
    on_bad_item: OnBadItem = "error",
) -> Catalog:
    """Returns the catalogue of the boxes: an item is a crop of its board's picture.

    The item id is ``<signature>-<number of the box on its board>``, the group is the board, the
    category the label. Pictures are named as `crops` says and cropped when they are loaded.

    Args:
        path: ``raw_train.tsv`` or ``raw_test.tsv`` as published.
        pictures: The folder or ``.zip`` of the boards' pictures; ``None`` gives the table alone,
            whose pictures are neither looked for nor can be loaded.
        image_pattern: Where in ``pictures`` a board's picture lies, as ``"{signature}.jpg"`` or
            ``"{signature:.2}/{signature}.jpg"``, which sorts them by the first two digits.
        split: Marks every row; ``""`` leaves it to be drawn by board.
        max_rows: Takes so many rows at random, as the study of 2023 took 50,000: the rows that
            pandas' ``DataFrame.sample(n=max_rows, random_state=seed)`` takes of the whole file
            (bad rows among them), in the file's order. ``None`` takes all, as does a number above
            the file's rows.
        seed: Of ``max_rows``, in 0..2^32-1; another seed takes other rows.
        on_bad_item: ``error`` stops when a row cannot be an item, ``skip`` leaves it out and keeps
            it in ``refused``.

    Raises:
        FileNotFoundError: Nothing is at ``path`` or ``pictures``.
        BadItemsError: There are bad rows and ``on_bad_item`` is ``error``: another number of fields
            than six, a signature that is none, a box without area or outside the picture, no label,
            a row that stands twice, a picture that is missing.
        ValueError: The file is no such table or not UTF-8; ``image_pattern``, ``split``,
            ``max_rows``, ``seed`` or ``on_bad_item`` is out of range; or no row is good.
    """
    check_on_bad_item(on_bad_item)
    if split not in ("", "train", "val", "test"):
        raise ValueError(f"split is {split!r}; expected 'train', 'val', 'test' or '' for none")
    check_image_pattern(image_pattern)
    read = read_boxes(path, max_rows, seed)
    source = open_pictures(pictures)
    problems = {
        signature: source.problem(image_name(image_pattern, signature))
        for signature in read.signatures
    }
    refused = list(read.refused)
    kept: list[tuple[BoardBox, str]] = []
    for box in read.boxes:
        image = crop_name(image_name(image_pattern, box.signature), box.box)
        problem = problems[box.signature]
        if problem:
            refused.append(RefusedItem(box.item_id, image, f"{box.place}: {problem}"))
        else:
            kept.append((box, image))
    columns: dict[str, list[str]] = {
        "item_id": [box.item_id for box, _ in kept],
        "image": [image for _, image in kept],
        "category": [box.label for box, _ in kept],
        "group": [box.signature for box, _ in kept],
        "split": [split] * len(kept),
    }
    return conclude(
        "complete_the_look",
        columns,
        CropSource(source),
        refused,
        on_bad_item=on_bad_item,
        origin=str(path),
    )


def needed_pictures(
    path: str | os.PathLike[str],
    image_pattern: str = "{signature}.jpg",
    max_rows: int | None = None,
    seed: int = 0,
) -> dict[str, str]:
    """Returns the pictures that the catalogue needs: name below ``pictures`` -> address.

    The arguments are those of `complete_the_look`; each board stands once, in the file's order.

    Raises:
        FileNotFoundError: Nothing is at ``path``.
        ValueError: As for `complete_the_look`; bad rows need no picture and are passed over.
    """
    check_image_pattern(image_pattern)
    signatures = read_boxes(path, max_rows, seed).signatures
    return {image_name(image_pattern, name): picture_url(name) for name in signatures}


def picture_url(signature: str) -> str:
    """Returns the address of a signature's picture, 400 px wide, by the dataset's own rule.

    The dataset's README, and that of Shop the Look, spell it with http; it is https here.

    Raises:
        ValueError: The signature is not 32 hexadecimal digits in lower case.

    Example:
        >>> picture_url("00015b9d0c08164ed3b5dbb4613bb143")
        'https://i.pinimg.com/400x/00/01/5b/00015b9d0c08164ed3b5dbb4613bb143.jpg'
    """
    problem = signature_problem(signature)
    if problem:
        raise ValueError(problem)
    first, second, third = signature[0:2], signature[2:4], signature[4:6]
    return f"https://i.pinimg.com/400x/{first}/{second}/{third}/{signature}.jpg"


def read_boxes(
    path: str | os.PathLike[str], max_rows: int | None = None, seed: int = 0
) -> BoardBoxes:
    """Returns the boxes of a published file, without looking for pictures.

    Args:
        path: ``raw_train.tsv`` or ``raw_test.tsv``.
        max_rows: As for `complete_the_look`; refused rows are those of the sample.
        seed: Of ``max_rows``.

    Raises:
        FileNotFoundError: No file is at ``path``.
        ValueError: The file is not UTF-8 or has another header; ``max_rows`` is below 1, or
            ``seed`` out of range.
    """
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows is {max_rows}; expected at least 1, or None for all")
    if not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"seed is {seed}; expected 0 to {_MAX_SEED}: choose one")
    header, *lines = read_text(path, "raw_train.tsv or raw_test.tsv as published").split("\n")
    if tuple(header.split()) != COLUMNS:
        raise ValueError(
            f"{path} has the header {header[:200]!r}; expected {' '.join(COLUMNS)!r}: give "
            "raw_train.tsv or raw_test.tsv, not the triplets"
        )
    rows = [(number, line.rstrip("\r")) for number, line in enumerate(lines, start=2)]
    rows = [(number, line) for number, line in rows if line]
    taken = _taken(len(rows), max_rows, seed)
    boxes: list[BoardBox] = []
    refused: list[RefusedItem] = []
    seen: dict[tuple[str, Box, str], str] = {}
    counted: Counter[str] = Counter()  # board -> rows so far
    for (number, line), take in zip(rows, taken.tolist(), strict=True):
        signature, *values = (text.strip() for text in line.split("\t"))
        counted[signature] += 1
        if not take:
            continue
        place = f"line {number}"
        item_id = place if signature_problem(signature) else f"{signature}-{counted[signature]}"
        try:
            box, label = _parse(signature, values)
            earlier = seen.setdefault((signature, box, label), place)
            if earlier != place:
                raise ValueError(f"the same box and label stand in {earlier} already")
        except ValueError as error:
            refused.append(RefusedItem(item_id, "", f"{place}: {error}"))
        else:
            boxes.append(BoardBox(item_id, signature, box, label, place))
    return BoardBoxes(tuple(boxes), tuple(refused))


def _taken(num_rows: int, max_rows: int | None, seed: int) -> NDArray[np.bool_]:
    """Says which rows the sample takes (``[num_rows] bool``)."""
    if max_rows is None or max_rows >= num_rows:
        return np.ones(num_rows, dtype=np.bool_)
    taken = np.zeros(num_rows, dtype=np.bool_)
    # what DataFrame.sample draws; NumPy keeps this stream as it is for ever (NEP 19)
    taken[np.random.RandomState(seed).choice(num_rows, size=max_rows, replace=False)] = True
    return taken


def _parse(signature: str, values: list[str]) -> tuple[Box, str]:
    if len(values) != len(COLUMNS) - 1:
        raise ValueError(
            f"has {len(values) + 1} field(s) between tabs; expected {len(COLUMNS)}: "
            f"{', '.join(COLUMNS)}"
        )
    problem = signature_problem(signature)
    if problem:
        raise ValueError(problem)
    for name, text in zip(COLUMNS[1:5], values, strict=False):
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{name} is {text!r}; expected a number, as 0.25 or 2.5E-4")
    try:
        box = Box(*(float(text) for text in values[:4]))
    except BoxError as error:
        raise ValueError(str(error)) from error
    if not values[4]:
        raise ValueError("the label is empty")
    return box, values[4]
