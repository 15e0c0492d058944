"""Shop the Look: products, and the scenes that show them, as published (arXiv 1812.01748).

``fashion.json`` of https://github.com/kang205/STL-Dataset holds one object a line (an array of them
is read as well): ``product`` and ``scene``, the signatures of two pictures, and ``bbox``, the
product's place in the scene as left, top, right, bottom in fractions of the picture.
``fashion-cat.json`` is one object, product signature -> category path such as
``Apparel & Accessories|Clothing|Shorts``. ``home.json`` and ``home-cat.json`` are alike. The
pictures are not part of it; each is fetched by its signature, see
`visual_search.catalog.readers.complete_the_look.picture_url`.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from visual_search import builder
from visual_search.catalog.catalog import REQUIRED_COLUMNS, Catalog, RefusedItem
from visual_search.catalog.readers import OnBadItem, check_on_bad_item, conclude
from visual_search.catalog.readers.complete_the_look import picture_url
from visual_search.catalog.readers.crops import Box, CropSource, crop_name
from visual_search.catalog.readers.pinterest import (
    check_image_pattern,
    image_name,
    open_pictures,
    read_text,
    signature_problem,
)

SplitBy = Literal["product", "domain"]

PRODUCT, SCENE = "product", "scene"  # the domains
_VAL_DIVISOR = 10  # with split_by=domain, one scene in ten validates


@dataclass(frozen=True)
class ScenePair:
    """A product, and where a scene shows it.

    Attributes:
        item_id: ``<scene>-<product>``; a second box of the same two ends with ``-2``, and so on.
        product: Signature of the product's own picture.
        scene: Signature of the scene's picture.
        box: Where in the scene.
        place: Where it stands in the file, as ``line 12`` or ``entry 12``.
    """

    item_id: str
    product: str
    scene: str
    box: Box
    place: str


@dataclass(frozen=True)
class ScenePairs:
    """What ``fashion.json`` says.

    Attributes:
        pairs: The good entries, in the file's order.
        refused: The others, with the reason.
    """

    pairs: tuple[ScenePair, ...]
    refused: tuple[RefusedItem, ...]

    @property
    def products(self) -> list[ScenePair]:
        """The first pair of each product, in the file's order."""
        first: dict[str, ScenePair] = {}
        for pair in self.pairs:
            first.setdefault(pair.product, pair)
        return list(first.values())


@dataclass(frozen=True)
class ProductCategories:
    """What ``fashion-cat.json`` says.

    Attributes:
        paths: Product -> category path from coarse to fine, at least one level, none empty.
        problems: Product -> why its entry is no path.
    """

    paths: dict[str, tuple[str, ...]]
    problems: dict[str, str]

    def problem(self, product: str) -> str:
        """Returns the reason why a product has no category, or ``""``."""
        if product in self.paths:
            return ""
        return self.problems.get(product, f"product {product!r} has no category path")

    @property
    def num_levels(self) -> int:
        """Levels of the longest path."""
        return max(map(len, self.paths.values()), default=0)

    def category_names(self) -> dict[tuple[str, ...], str]:
        """Returns path -> the category's name: its leaf, or all of it where paths share a leaf."""
        distinct = set(self.paths.values())
        ends = Counter(path[-1] for path in distinct)
        return {path: path[-1] if ends[path[-1]] == 1 else "|".join(path) for path in distinct}


@builder("data")
def shop_the_look(
    path: str | os.PathLike[str],
    categories: str | os.PathLike[str],
    pictures: str | os.PathLike[str] | None,
    product_pattern: str = "{signature}.jpg",
    scene_pattern: str = "{signature}.jpg",
    split_by: SplitBy = "product",
    on_bad_item: OnBadItem = "error",
) -> Catalog:
    """Returns the catalogue of the products and of the crops of scenes that show them.

    Products come first, by their first mention, with their signature as id; then the crops by id,
    ``<scene>-<product>``. The category is the leaf of the product's category path (the whole path
    where two paths share a leaf), for its crops as well. Attributes: ``domain`` (``product`` or
    ``scene``), ``product`` and ``scene`` (signatures; a product has no scene), ``level_1``,
    ``level_2`` ... the category path, whose leaf is repeated where others go deeper, so that no
    level is empty: an empty one would equal nothing in ``protocol.hierarchy``.

    The splits are drawn by product by default. A product and all crops that show it are one group,
    and no split is marked: whole products are held out, and ``protocol=cross_domain``, whose
    relevance is the group, asks for the product that a crop shows among the products of all splits.
    One scene may lend crops to products of several splits; the crops are different parts of it,
    which may overlap.

    With ``split_by="domain"`` all products are ``train``, and the crops ``test``, but for those of
    one scene in ten (CRC-32 of its signature) that are ``val``. The groups are then the products,
    each alone, and the scenes (``scene-<signature>``), since a group may not be torn between
    splits: ask with ``protocol.relevance=[product]`` for the product itself.

    Args:
        path: ``fashion.json``.
        categories: ``fashion-cat.json``. Products that no scene shows are no items.
        pictures: The folder or ``.zip`` of all pictures; ``None`` gives the table alone, whose
            pictures are neither looked for nor can be loaded.
        product_pattern: Where in ``pictures`` a product's picture lies, as
            ``"product/{signature}.jpg"``.
        scene_pattern: The same for scenes.
        split_by: ``product`` or ``domain``.
        on_bad_item: ``error`` stops when something cannot be an item, ``skip`` leaves it out and
            keeps it in ``refused``. A product without its picture does not take its crops with it,
            a product without a category does.

    Raises:
        FileNotFoundError: Nothing is at ``path``, ``categories`` or ``pictures``.
        BadItemsError: There are bad items and ``on_bad_item`` is ``error``: an entry that is no
            object of the three fields, a signature that is none, a box that is not four numbers,
            has no area or lies outside the scene, an entry that stands twice, a product without a
            category path, a picture that is missing.
        ValueError: A file is not UTF-8 or not the JSON expected; a pattern, ``split_by`` or
            ``on_bad_item`` is another; or no item is good.
    """
    check_on_bad_item(on_bad_item)
    if split_by not in (PRODUCT, "domain"):
        raise ValueError(f"split_by is {split_by!r}; expected 'product' or 'domain'")
    check_image_pattern(product_pattern, "product_pattern")
    check_image_pattern(scene_pattern, "scene_pattern")
    known, read = read_categories(categories), read_pairs(path)
    source = open_pictures(pictures)
    names, depth = known.category_names(), known.num_levels
    rows: list[tuple[str, ...]] = []
    refused = list(read.refused)

    def add(pair: ScenePair, domain: str, problem: str | None) -> None:
        """Adds the product of a pair, or its crop, with its attributes."""
        if domain == SCENE:
            image = crop_name(image_name(scene_pattern, pair.scene), pair.box)
            item_id, scene = pair.item_id, pair.scene
        else:
            image = image_name(product_pattern, pair.product)
            item_id, scene = pair.product, ""
        problem = known.problem(pair.product) or problem
        if problem:
            refused.append(RefusedItem(item_id, image, f"{pair.place}: {problem}"))
            return
        levels = known.paths[pair.product]
        padded = levels + levels[-1:] * (depth - len(levels))
        group, split = _group_and_split(pair, domain, split_by)
        rows.append(
            (item_id, image, names[levels], group, split, domain, pair.product, scene, *padded)
        )

    for pair in read.products:
        add(pair, PRODUCT, source.problem(image_name(product_pattern, pair.product)))
    problems = {
        scene: source.problem(image_name(scene_pattern, scene))
        for scene in {pair.scene for pair in read.pairs}
    }
    for pair in sorted(read.pairs, key=lambda pair: pair.item_id):  # crops of a scene in a row
        add(pair, SCENE, problems[pair.scene])
    levels = [f"level_{level + 1}" for level in range(depth)]
    return conclude(
        "shop_the_look",
        {
            column: [row[place] for row in rows]
            for place, column in enumerate((*REQUIRED_COLUMNS, "domain", PRODUCT, SCENE, *levels))
        },
        CropSource(source),
        refused,
        on_bad_item=on_bad_item,
        origin=str(path),
    )


def needed_pictures(
    path: str | os.PathLike[str],
    categories: str | os.PathLike[str],
    product_pattern: str = "{signature}.jpg",
    scene_pattern: str = "{signature}.jpg",
) -> dict[str, str]:
    """Returns the pictures that the catalogue needs: name below ``pictures`` -> address.

    The arguments are those of `shop_the_look`. Products come first, then scenes, by their first
    mention; those of entries that cannot be items are passed over.

    Raises:
        FileNotFoundError: Nothing is at ``path`` or ``categories``.
        ValueError: As for `shop_the_look`.
    """
    check_image_pattern(product_pattern, "product_pattern")
    check_image_pattern(scene_pattern, "scene_pattern")
    known, read = read_categories(categories), read_pairs(path)
    good = [pair for pair in read.pairs if not known.problem(pair.product)]
    products = {image_name(product_pattern, p.product): picture_url(p.product) for p in good}
    scenes = {image_name(scene_pattern, p.scene): picture_url(p.scene) for p in good}
    return products | scenes


def read_pairs(path: str | os.PathLike[str]) -> ScenePairs:
    """Returns the pairs of ``fashion.json``, without looking for pictures.

    Raises:
        FileNotFoundError: No file is at ``path``.
        ValueError: The file is not UTF-8, or starts as a JSON array and is none.
    """
    pairs: list[ScenePair] = []
    refused: list[RefusedItem] = []
    seen: dict[tuple[str, str, Box], str] = {}
    counted: Counter[str] = Counter()  # scene-product -> entries so far
    for place, value, error in _entries(path):
        problem, item_id = error or _pair_problem(value), place
        if not problem:
            product, scene = value[PRODUCT], value[SCENE]
            item_id = f"{scene}-{product}"
            counted[item_id] += 1
            item_id += f"-{counted[item_id]}" if counted[item_id] > 1 else ""
            try:
                box = Box.from_edges(*value["bbox"])
            except (TypeError, ValueError) as cause:
                problem = f"bbox {value['bbox']}: {cause}"
            else:
                earlier = seen.setdefault((product, scene, box), place)
                if earlier == place:
                    pairs.append(ScenePair(item_id, product, scene, box, place))
                    continue
                problem = f"the same product, scene and bbox stand in {earlier} already"
        refused.append(RefusedItem(item_id, "", f"{place}: {problem}"))
    return ScenePairs(tuple(pairs), tuple(refused))


def read_categories(path: str | os.PathLike[str]) -> ProductCategories:
    """Returns the category paths of ``fashion-cat.json``.

    Raises:
        FileNotFoundError: No file is at ``path``.
        ValueError: The file is not UTF-8, or no JSON object.
    """
    expected = "fashion-cat.json as published"
    try:
        loaded = json.loads(read_text(path, expected))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}); expected {expected}") from error
    if not isinstance(loaded, dict):
        raise ValueError(
            f"{path} holds a JSON {type(loaded).__name__}; expected an object, product -> category "
            f"path: {expected}"
        )
    paths: dict[str, tuple[str, ...]] = {}
    problems: dict[str, str] = {}
    for product, text in loaded.items():
        levels = tuple(level.strip() for level in text.split("|")) if isinstance(text, str) else ()
        if levels and all(levels):
            paths[product] = levels
        else:
            problems[product] = (
                f"the category path of product {product!r} is {text!r}; expected levels separated "
                "by '|', none of them empty"
            )
    return ProductCategories(paths, problems)


def _entries(path: str | os.PathLike[str]) -> Iterator[tuple[str, Any, str]]:
    """Returns place, value and, where the JSON does not parse, the reason."""
    text = read_text(path, "fashion.json as published")
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} starts as a JSON array and is none: {error}; expected fashion.json, one "
                "object a line or one array: fetch it again"
            ) from error
        yield from ((f"entry {number}", value, "") for number, value in enumerate(values, 1))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line), ""
        except (ValueError, RecursionError) as error:
            yield f"line {number}", None, f"is no JSON: {error}"


def _pair_problem(value: object) -> str:
    """Returns the reason why this is no pair, the box's numbers aside."""
    if not isinstance(value, dict):
        return f"is a JSON {type(value).__name__}; expected an object: product, scene, bbox"
    missing = [field for field in (PRODUCT, SCENE, "bbox") if field not in value]
    if missing:
        return f"lacks {missing}; expected an object: product, scene, bbox"
    for field in (PRODUCT, SCENE):
        problem = signature_problem(value[field])
        if problem:
            return f"{field}: {problem}"
    box = value["bbox"]
    if not isinstance(box, list) or len(box) != 4:
        return f"bbox is {box!r}; expected four numbers: left, top, right, bottom"
    return ""


def _group_and_split(pair: ScenePair, domain: str, split_by: SplitBy) -> tuple[str, str]:
    if split_by == PRODUCT:
        return pair.product, ""
    if domain == PRODUCT:
        return pair.product, "train"
    held = zlib.crc32(pair.scene.encode()) % _VAL_DIVISOR == 0
    return f"scene-{pair.scene}", "val" if held else "test"
