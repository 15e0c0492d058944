"""What DeepFashion's benchmarks share: counted rows, boxes, folders of pictures."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers import OnBadItem
from visual_search.catalog.readers.crops import BoxError
from visual_search.catalog.readers.listings import Items, check_choice, find_file, read_text
from visual_search.catalog.readers.pixel_crops import PixelCropSource, pixel_box
from visual_search.catalog.readers.sources import FileSource, open_source

Pictures = Literal["img", "img_highres"]

PARTITION = "list_eval_partition.txt"
CORNERS = ("x_1", "y_1", "x_2", "y_2")
# The numbers in the listings of boxes, as the data's README explains them
CLOTHES = {"1": "upper body", "2": "lower body", "3": "full body"}


@dataclass(frozen=True)
class Benchmark:
    """How one of them is published.

    Attributes:
        name: As ``In-shop``.
        boxes: Its listing of boxes.
        kinds: The columns between path and box in it.
        path: The form of a picture's path, ``img`` and four parts.
    """

    name: str
    boxes: str
    kinds: tuple[str, str]
    path: str

    def open(self, root: str | os.PathLike[str], pictures: str, *, crop: bool) -> Opened:
        """Returns its files.

        Args:
            root: The folder or zip that holds them, each at any depth.
            pictures: The folder of the pictures.
            crop: Whether they are to be cut to their boxes.

        Raises:
            FileNotFoundError: Nothing is at ``root``, or a listing or the pictures are not in it.
            ValueError: ``pictures`` is another folder, or not ``img`` where they are to be cropped.
        """
        check_choice("data.pictures", pictures, get_args(Pictures))
        if crop and pictures != "img":
            raise ValueError(
                f"data.crop=true with data.pictures={pictures}: the boxes are pixels of the "
                "pictures in img; expected data.pictures=img, or data.crop=false"
            )
        source = open_source(root)
        hint = f"unpack DeepFashion's {self.name} benchmark, with Eval/"
        inner = find_file(source, PARTITION, hint)
        base = _base_of_pictures(source, pictures) + pictures
        boxes = None
        if crop or any(name.split("/")[-1] == self.boxes for name in source.names()):
            boxes = self._boxes(source)
        return Opened(self, source, f"{root} ({inner})", inner, base, boxes, crop)

    def _boxes(self, source: FileSource) -> dict[str, list[str]]:
        hint = f"unpack Anno/ of the {self.name} benchmark, or give crop=false"
        columns = ("image_name", *self.kinds, *CORNERS)
        rows = self.rows(source, find_file(source, self.boxes, hint), columns)
        return {fields[0]: fields[1:] for _, fields in rows if len(fields) == len(columns)}

    def rows(
        self, source: FileSource, inner: str, columns: Sequence[str]
    ) -> Iterator[tuple[str, list[str]]]:
        """Yields place and fields of each row: a count, a header, then rows padded with blanks.

        Raises:
            ValueError: The listing has another header, or another number of rows than it says.
        """
        lines = read_text(source, inner).split("\n")
        first, header = lines[0].strip(), lines[1].split() if len(lines) > 1 else []
        if not first.isdecimal() or header != list(columns):
            raise ValueError(
                f"{inner} begins with {first[:60]!r} and the header {header}; expected the number "
                f"of rows and {list(columns)}: take the file of the {self.name} benchmark as "
                "published"
            )
        rows = [(n, line) for n, line in enumerate(lines[2:], start=3) if line.strip()]
        if len(rows) != int(first):
            raise ValueError(
                f"{inner} says that it has {int(first)} rows, and has {len(rows)}; expected as "
                "many: it was cut off or changed, so fetch it again"
            )
        for number, line in rows:
            # from the right: only the path, the first field, may hold a space
            yield f"line {number}", line.strip().rsplit(maxsplit=len(columns) - 1)


@dataclass(frozen=True)
class Opened:
    """Its files.

    Attributes:
        benchmark: How they are published.
        source: Where they lie.
        origin: What is read, for messages.
        partition: Path of the listing of splits.
        base: Path of the folder of pictures.
        boxes: By a picture's path, both kinds and the corners, as they stand; None without boxes.
        crop: Whether pictures are cut to their boxes.
    """

    benchmark: Benchmark
    source: FileSource
    origin: str
    partition: str
    base: str
    boxes: Mapping[str, Sequence[str]] | None
    crop: bool

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Yields place and fields of each row of the listing of splits, as `Benchmark.rows`."""
        return self.benchmark.rows(self.source, self.partition, columns)

    def kinds(self, image: str) -> tuple[str, str]:
        """Returns the numbers that stand before a picture's box; empty where it has none."""
        first, second = (*(self.boxes or {}).get(image, ()), "", "")[:2]
        return first, second

    def place(self, image: str) -> tuple[str, str, str]:
        """Returns where a picture lies, the fragment of its box, and why it has none of these."""
        parts = image.split("/")
        if len(parts) != 5 or parts[0] != "img":
            return image, "", f"the path is not {self.benchmark.path}"
        fragment, reason = self._fragment(image) if self.crop else ("", "")
        return "/".join([self.base, *parts[1:]]), fragment, reason

    def _fragment(self, image: str) -> tuple[str, str]:
        corners = list((self.boxes or {}).get(image, ())[2:])
        listing = self.benchmark.boxes
        if not any(corners):
            return "", f"there is no box for it in {listing}"
        if not all(re.fullmatch("[0-9]{1,9}", corner) for corner in corners):
            return "", f"the box in {listing} is {corners}; expected four whole numbers"
        try:
            return pixel_box(*(int(corner) for corner in corners)), ""
        except BoxError as error:
            return "", str(error)

    def conclude(self, items: Items, name: str, on_bad_item: OnBadItem) -> Catalog:
        """Returns the catalogue, as `Items.conclude` does."""
        source = PixelCropSource(self.source) if self.crop else None
        return items.conclude(name, on_bad_item=on_bad_item, origin=self.origin, source=source)


def _base_of_pictures(source: FileSource, pictures: str) -> str:
    """Returns what stands before ``img/`` in the paths of the pictures, as ``Img/``."""
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
