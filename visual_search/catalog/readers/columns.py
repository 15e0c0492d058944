"""Which column of a table says what, where nobody has told: found out by names and content."""

from __future__ import annotations

import os
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from visual_search.catalog.catalog import SPLITS, Choice
from visual_search.catalog.readers.delimited import RawTable
from visual_search.catalog.readers.listings import split_of_word
from visual_search.catalog.readers.picture_names import is_clutter
from visual_search.catalog.readers.products import (
    PICTURE_SUFFIXES,
    Columns,
    IsThere,
    has_picture_suffix,
    is_url,
    names_picture,
    pictures_in,
    role_told,
)
from visual_search.catalog.readers.sources import FileSource
from visual_search.wording import many

_SAMPLE = 200  # cells of a column that are looked at
_MOST = 0.8  # share of them that have to be what a column is taken for
_NEARLY_ALL = 0.98
_MIN_GROUPS = 10  # to tell a group by its content
_MAX_LETTERS = 80  # of a category's name

# Without signs and capitals; the likelier first.
_NAMES = {
    "item_id": (
        *("itemid", "id", "sku", "productid", "articleid", "variantsku", "itemno", "itemnumber"),
        *("articlenumber", "articleno", "artikelnummer", "artikelnr", "artnr", "productcode"),
        *(
            "stylecode",
            "code",
            "ref",
            "reference",
            "referencia",
            "handle",
            "ean",
            "gtin",
            "barcode",
        ),
        *("upc", "asin", "uuid", "key", "number", "nummer", "nr", "no"),
    ),
    "image": (
        *("image", "images", "imageurl", "imagelink", "imagesrc", "imagepath", "imagefile"),
        *("mainimage", "baseimage", "picture", "pictures", "pictureurl", "photo", "photos"),
        *("photourl", "img", "imgurl", "bild", "bilder", "bildurl", "foto", "fotos", "imagen"),
        *("imagenes", "resim", "filename", "file", "path", "filepath", "url"),
    ),
    "category": (
        *("category", "categories", "categoryname", "producttype", "articletype", "type", "kind"),
        *("subcategory", "class", "label", "target", "kategorie", "categorie", "categoria"),
        *("kategori", "kategoria", "warengruppe", "typ", "department", "section", "family"),
        *("art", "genre", "rayon", "tipo", "reparto"),
    ),
    "group": (
        *("group", "groupid", "itemgroupid", "parentid", "parentsku", "parent", "productid"),
        *("product", "productcode", "style", "styleid", "stylecode", "model", "modelid"),
        *("look", "lookid", "outfit", "outfitid"),
        *("board", "boardid", "senderid", "sellerid", "userid"),
    ),
    "split": ("split", "partition", "subset", "set", "fold"),
}
# What has few values as well, and is hardly ever meant by a category.
_OTHER_WORDS = {
    *("brand", "vendor", "manufacturer", "marke", "hersteller", "marque", "marca", "supplier"),
    *("colour", "color", "basecolour", "basecolor", "farbe", "couleur", "size", "groesse", "größe"),
    *("gender", "sex", "geschlecht", "agegroup", "season", "saison", "year", "jahr", "usage"),
    *("status", "availability", "currency", "condition", "material", "country", "language"),
    *("published", "stock", "instock", "visibility", "taxclass", "taxstatus", "unit"),
}
_ORDER = [f"data.{role}" for role in ("item_id", "image", "image_pattern", *_NAMES, "product")]
_OF_PICTURES = re.compile(r"image|picture|photo|img|bild|foto|file|view", re.IGNORECASE)
_NO_PRODUCTS = ("look", "outfit", "board", "sender", "seller", "user")  # but who has several
_MOST_PICTURES = 20  # of a product
_FEWEST_PICTURES = 1.2  # in the mean
_NUMBER = re.compile(r"[-+]?[\d.,' ]*\d(\s?(%|€|\$|£|[A-Z]{3}))?")
_FURTHER = re.compile(r"additional|further|more|gallery|other|extra|weitere|zusatz", re.IGNORECASE)


class NotFoundOutError(ValueError):
    """No column can be taken for what is needed; the message says of what, and what there is."""


@dataclass(frozen=True)
class _Column:
    """What a column holds, as far as a table is told by it."""

    name: str
    place: int
    values: Sequence[str]
    lists: Sequence[Sequence[str]] | None
    is_there: IsThere

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(value for value in map(str.strip, self.values) if value)

    @property
    def num_filled(self) -> int:
        return self.counts.total()

    @cached_property
    def sample(self) -> list[str]:
        """Some different values, evenly spread."""
        values = list(self.counts)
        return values[:: max(1, len(values) // _SAMPLE)][:_SAMPLE]

    def share(self, holds: Callable[[str], object]) -> float:
        """Returns of how many of the sampled values something holds."""
        return sum(map(bool, map(holds, self.sample))) / max(1, len(self.sample))

    @cached_property
    def shares_of_pictures(self) -> tuple[float, float, float]:
        """How many values name pictures that are there, end as one, or might be one's URL."""
        if self.lists is not None:
            firsts = [one[0] for one in self.lists if one][:_SAMPLE]
        else:
            firsts = [(pictures_in(text, self.is_there) or [""])[0] for text in self.sample]
        number = max(1, len(firsts))
        tests = (self.is_there, has_picture_suffix, names_picture)
        there, ends, might = (sum(map(test, firsts)) / number for test in tests)
        return there, ends, might

    @property
    def names_pictures(self) -> bool:
        there, ends, might = self.shares_of_pictures
        known = might if self.rank("image") < len(_NAMES["image"]) else 0.0
        return self.num_filled > 0 and max(there, ends, known) >= _MOST

    @property
    def is_there_or_url(self) -> bool:
        """Whether pictures can be had as they are named."""
        there, _, _ = self.shares_of_pictures
        return there >= _MOST / 2 or self.share(lambda text: is_url(text.split()[0])) >= _MOST / 2

    @property
    def is_number(self) -> bool:
        return self.share(_NUMBER.fullmatch) >= _MOST

    @property
    def is_decimal(self) -> bool:
        """Whether it holds prices and sizes: numbers with a point or comma."""
        return self.is_number and self.share(re.compile(r"\d[.,]\d").search) >= 0.1

    @property
    def plain_name(self) -> str:
        return "".join(sign for sign in self.name.casefold() if sign.isalnum())

    @property
    def bare_name(self) -> str:
        """The plain name without the number that tells several of a kind apart."""
        return "".join(sign for sign in self.plain_name if not sign.isdigit())

    def rank(self, role: str) -> int:
        """Returns where among a role's names its own stands; behind them all if it does not."""
        names = _NAMES[role]
        return names.index(self.bare_name) if self.bare_name in names else len(names)


def find_columns(
    raw: RawTable,
    told: Columns,
    source: FileSource,
    is_there: IsThere,
    folder: str,
) -> tuple[Columns, tuple[Choice, ...]]:
    """Returns which columns say what, and a choice for each that was found out.

    The id is the column whose values are all different; pictures stand where files are named that
    are there, or whose names end as pictures' do; the category where few values are filled, as
    words; a group, where repeated values look like the id of a product. It is the product where
    the ids are those of pictures, in which alone its rows differ. Of several that fit, names
    decide.

    Args:
        raw: The table.
        told: What is told already; empty where it is to be found out.
        source: Where the pictures lie.
        is_there: Whether a path, as the table writes it, is that of a picture.
        folder: What such a path is relative to, below the source's root.

    Raises:
        NotFoundOutError: No column can be taken for the id, the pictures or the category.
    """
    columns = _columns_of(raw, is_there)
    roles = told
    found: list[Choice] = []

    def left() -> list[_Column]:
        taken = {roles.item_id, *roles.images, roles.category, roles.group, roles.split}
        taken.add(roles.product)
        return [column for column in columns.values() if column.name not in taken]

    def note(role: str, setting: str | tuple[str, ...], why: str) -> None:
        found.append(role_told(role, setting, why))

    if not roles.images:
        images, why = _images(left())
        column, pattern, by_files = "", "", ""
        if not images or not columns[images[0]].is_there_or_url:
            column, pattern, by_files = _pattern(left(), images[:1], source, folder)
        if images and not pattern:
            note("image", images if len(images) > 1 else images[0], why)
            roles = replace(roles, images=images)
        else:
            if not pattern:
                raise NotFoundOutError("no column names pictures that are there, or look like some")
            note("image_pattern", pattern, by_files)
            roles = replace(roles, images=(column,), image_pattern=pattern)
    if not roles.item_id:
        unused = left() if roles.image_pattern is None else [*left(), columns[roles.images[0]]]
        item_id, why = _item_id(unused, [columns[name] for name in roles.images])
        if not item_id:
            raise NotFoundOutError("no column has another value in each row, as an id has")
        note("item_id", item_id, why)
        roles = replace(roles, item_id=item_id)
    if roles.split is None and (split := _split(left())):
        note("split", split, "all of its values are splits")
        roles = replace(roles, split=split)
    if not roles.category:
        category, why = _category(left(), len(raw.rows))
        if not category:
            raise NotFoundOutError("no column has few values that many rows share, as categories")
        note("category", category, why)
        roles = replace(roles, category=category)
    if roles.group is None and roles.product is None:
        group, why = _group(left(), columns[roles.category].values)
        of_pictures = roles.item_id in roles.images or _OF_PICTURES.search(roles.item_id)
        if group and of_pictures and _is_product(columns, replace(roles, group=group)):
            num = many(len(columns[group].counts), "product")
            note("product", group, f"{num}, whose rows differ in their pictures alone")
            roles = replace(roles, product=group)
        elif group:
            note("group", group, why)
            roles = replace(roles, group=group)
    return roles, tuple(sorted(found, key=lambda one: _ORDER.index(one.key)))


def rows_may_be_pictures(raw: RawTable, roles: Columns, is_there: IsThere) -> tuple[Choice, ...]:
    """Returns that rows of one group may be pictures of one product, where nothing else tells them.

    Args:
        raw: The table.
        roles: Which of its columns say what.
        is_there: Whether a path is that of a picture.
    """
    if (
        roles.group is None
        or roles.product is not None
        or not _is_product(_columns_of(raw, is_there), roles)
    ):
        return ()
    why = (
        f"rows of one {roles.group} differ in their pictures alone: if they are one product, "
        f"data.product={roles.group} finds it once"
    )
    return (Choice("data.product", "null", why),)


def no_header(columns: Sequence[str]) -> str:
    """Returns why what stands as names of columns is a row; nothing where it may well be names.

    Example:
        >>> no_header(["7", "Hats", "images/7.jpg"])
        "its first line is a row and no header, as it names the picture 'images/7.jpg'"
    """
    for name in filter(names_picture, columns):
        return f"its first line is a row and no header, as it names the picture {name!r}"
    return ""


def _columns_of(raw: RawTable, is_there: IsThere) -> dict[str, _Column]:
    values = list(zip(*raw.rows, strict=True)) if raw.rows else [()] * len(raw.columns)
    return {
        name: _Column(name, place, values[place], raw.lists.get(name), is_there)
        for place, name in enumerate(raw.columns)
    }


def _is_product(columns: Mapping[str, _Column], roles: Columns) -> bool:
    """Returns whether rows of a group differ in nothing but their ids and pictures.

    Who sends photos of several things, and a board or an outfit, has rows of several categories.
    """
    group = columns[str(roles.group)]
    num_rows, num = group.num_filled, len(group.counts)
    if group.plain_name.startswith(_NO_PRODUCTS):
        return False
    if num < _MIN_GROUPS or num_rows < max(_FEWEST_PICTURES * num, len(group.values)):
        return False
    if max(group.counts.values()) > _MOST_PICTURES:
        return False
    for column in columns.values():
        is_its_own = column.num_filled and len(column.counts) >= _NEARLY_ALL * column.num_filled
        if column is group or is_its_own or column.name in (roles.item_id, *roles.images):
            continue
        told = dict(zip(group.values, column.values, strict=True))
        same = (told[one] == value for one, value in zip(group.values, column.values, strict=True))
        if not all(same):
            return False
    return True


def _images(columns: Sequence[_Column]) -> tuple[tuple[str, ...], str]:
    fitting = [column for column in columns if column.names_pictures]
    if not fitting:
        return (), ""

    def worth(column: _Column) -> tuple[bool, bool, int, int]:
        there, ends, _ = column.shares_of_pictures
        return there < _MOST / 2, ends < _MOST, column.rank("image"), column.place

    main = min(fitting, key=worth)
    there, _, _ = main.shares_of_pictures
    if there >= _MOST / 2:
        why = f"{there:.0%} of its values name pictures that are there"
    else:
        why = "its values look like the names of pictures"
    if there < _MOST / 2 and main.is_there_or_url:
        why = "its values are URLs of pictures"
    names = [
        column.name
        for column in fitting
        if column is main
        or (column.bare_name == main.bare_name and re.search(r"\d", column.name))
        or _FURTHER.search(column.name)
    ]
    names.sort(key=lambda name: name != main.name)
    return tuple(names), why + (f", and {len(names) - 1} more such column(s)" * (len(names) > 1))


def _pattern(
    columns: Sequence[_Column], images: Sequence[str], source: FileSource, folder: str
) -> tuple[str, str, str]:
    """Returns the column that pictures are named after, the pattern, and why; or nothing.

    Args:
        columns: Those that are left.
        images: The one whose values look like pictures' names, where one does.
        source: Where the pictures lie.
        folder: What paths are relative to, below the source's root.
    """
    base = "" if folder == "." else f"{folder}/"
    places: dict[str, tuple[str, str]] = {}
    for path in source.names():
        suffix = os.path.splitext(path)[1]
        if suffix.lower() in PICTURE_SUFFIXES and path.startswith(base) and not is_clutter(path):
            within, _, name = path.removeprefix(base).rpartition("/")
            before = f"{within}/" if within else ""
            places.setdefault(name if images else name.removesuffix(suffix), (before, suffix))
    for column in sorted(columns, key=lambda one: (one.rank("item_id"), one.place)):
        if (images and column.name not in images) or not _is_plain(column.name):
            continue
        names = [
            (pictures_in(v, column.is_there) or [""])[0] if images else v for v in column.sample
        ]
        found = [places[name] for name in names if name in places]
        if not found:
            continue
        ((before, suffix), number) = Counter(found).most_common(1)[0]
        if number >= _MOST * len(names):
            pattern = f"{before}{{{column.name}}}{'' if images else suffix}"
            where = f"lie in {before}" if images else f"are named after {column.name}"
            return column.name, pattern, f"pictures {where}"
    return "", "", ""


def _is_plain(name: str) -> bool:
    try:
        return [field for _, field, _, _ in string.Formatter().parse(f"{{{name}}}")] == [name]
    except ValueError:
        return False


def _item_id(columns: Sequence[_Column], images: Sequence[_Column]) -> tuple[str, str]:
    fitting = []
    for column in columns:
        num_rows = len(column.values)
        is_filled = num_rows and column.num_filled >= _NEARLY_ALL * num_rows
        if is_filled and len(column.counts) >= _NEARLY_ALL * num_rows and not column.is_decimal:
            fitting.append(column)

    def worth(column: _Column) -> tuple[int, float, int]:
        prose = round(column.share(lambda text: " " in text or len(text) > 40), 1)
        return column.rank("item_id"), prose, column.place

    if fitting:
        best = min(fitting, key=worth)
        if best.rank("item_id") < len(_NAMES["item_id"]) or worth(best)[1] < 0.5:
            return best.name, f"{len(best.counts):,} different values in {len(best.values):,} rows"
    for column in images:
        is_one = all(len(pictures_in(text, column.is_there)) == 1 for text in column.sample)
        if len(column.counts) >= _NEARLY_ALL * len(column.values) and is_one and not column.lists:
            return column.name, "no other column has another value in each row: items are pictures"
    if fitting:
        best = min(fitting, key=worth)
        return best.name, f"{len(best.counts):,} different values in {len(best.values):,} rows"
    return "", ""


def _category(columns: Sequence[_Column], num_rows: int) -> tuple[str, str]:
    fitting = []
    for column in columns:
        num = len(column.counts)
        known = column.rank("category") < len(_NAMES["category"])
        words = known or not (column.is_number or column.names_pictures)
        short = column.share(lambda text: len(text) <= _MAX_LETTERS) >= _MOST
        if 2 <= num <= num_rows / 2 and column.num_filled >= _MOST * num_rows and words and short:
            fitting.append(column)

    def worth(column: _Column) -> tuple[int, bool, bool, bool, int, int]:
        num = len(column.counts)
        large = column.num_filled >= 5 * num  # items a value, in the mean
        other = column.plain_name in _OTHER_WORDS
        rank = column.rank("category")
        return rank, other, not large, num == 2, -num if large else num, column.place

    if not fitting:
        return "", ""
    best = min(fitting, key=worth)
    others = [column.name for column in sorted(fitting, key=worth)[1:4]]
    beside = f"; also possible: {', '.join(others)}" if others else ""
    return best.name, f"{len(best.counts):,} different values{beside}"


def _split(columns: Iterable[_Column]) -> str | None:
    for column in columns:
        words = set(map(split_of_word, column.counts))
        if column.rank("split") < len(_NAMES["split"]) and words and words <= set(SPLITS):
            return column.name
    return None


def _group(columns: Sequence[_Column], categories: Sequence[str]) -> tuple[str | None, str]:
    def repeats(column: _Column) -> bool:
        return 2 <= len(column.counts) < column.num_filled

    named = [one for one in columns if one.rank("group") < len(_NAMES["group"]) and repeats(one)]
    if named:
        best = min(named, key=lambda one: (one.rank("group"), one.place))
        return best.name, f"{many(len(best.counts), 'group')}, by its name"
    for column in columns:
        num = len(column.counts)
        rows = column.num_filled
        code = column.share(lambda text: " " not in text and re.search(r"\d", text)) >= _MOST
        if not (num >= _MIN_GROUPS and 0.05 * rows <= num <= 0.9 * rows and code):
            continue
        small = column.share(lambda text: re.fullmatch(r"\d{1,4}", text)) >= _MOST  # sizes, years
        if small or column.is_decimal or column.names_pictures or column.plain_name in _OTHER_WORDS:
            continue
        of_group: dict[str, set[str]] = {}
        for value, category in zip(column.values, categories, strict=True):
            of_group.setdefault(value, set()).add(category)
        if sum(len(one) == 1 for one in of_group.values()) >= _NEARLY_ALL * len(of_group):
            return column.name, f"{num:,} values that rows of one category share, as products"
    return None, ""
