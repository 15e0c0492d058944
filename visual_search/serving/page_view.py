"""What the pages show, made ready for the templates: cards, filters, the catalogue's window."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from visual_search.bundle.bundle import Bundle, Hit
from visual_search.serving.problems import Problem
from visual_search.serving.queries import Query, chosen_products
from visual_search.serving.searching import Answer
from visual_search.serving.served_bundle import MAX_FILTER_VALUES, ServedBundle
from visual_search.serving.templating import link

WINDOW_SIZE = 24
MAX_OPEN_FILTERS = 2  # further ones are folded until somebody wants them
MAX_SHOWN_ATTRIBUTES = 3
MAX_SHOWN_PICTURES = 4  # small ones, beside the one that was found


@dataclass(frozen=True)
class SmallPicture:
    """One more picture of a product: its id, its address, and that of what is like it."""

    item_id: str
    picture: str
    similar: str


@dataclass(frozen=True)
class Card:
    """A product with its picture.

    Attributes:
        item_id: The picture's id.
        product: The product's.
        category: Its category.
        attributes: The first ones that say something, column and text.
        picture: Address of its picture.
        similar: Address of what is like it.
        others: The product's other pictures that are shown.
        num_more: Those beyond them.
        rank: Its rank in an answer; 0 in the catalogue.
        squared_distance: To the query; None in the catalogue.
        elsewhere: Name of another bundle -> its rank there, None where it is not among them.
    """

    item_id: str
    product: str
    category: str
    attributes: Sequence[tuple[str, str]]
    picture: str
    similar: str
    others: Sequence[SmallPicture]
    num_more: int
    rank: int = 0
    squared_distance: float | None = None
    elsewhere: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FilterColumn:
    """One bundle's part of the results; ``problem`` says why there is none.

    With ``by_item`` its cards are pictures, else products.
    """

    served: ServedBundle
    answer: Answer | None
    cards: Sequence[Card]
    problem: Problem | None = None
    by_item: bool = False


@dataclass(frozen=True)
class Window:
    """A look at the catalogue: a page of items from all over it."""

    served: ServedBundle
    cards: Sequence[Card]
    total: int
    page: int
    num_pages: int
    before: str | None
    after: str | None


@dataclass(frozen=True)
class FilterChoice:
    """One value that can be filtered by."""

    text: str
    value: str  # as `where` has it
    num_items: int
    is_chosen: bool


@dataclass(frozen=True)
class Filter:
    """One column that can be filtered by."""

    column: str
    choices: Sequence[FilterChoice]  # those that are shown
    is_open: bool
    num_fitting: int  # values that hold what was typed; all of them where nothing was
    num_values: int

    @property
    def is_long(self) -> bool:
        """Has more values than are shown at once, so that one looks for them by name."""
        return self.num_values > MAX_FILTER_VALUES


@dataclass(frozen=True)
class QuerySummary:
    """What was looked for: its picture's address or data, a title, a line, its other pictures."""

    picture: str
    title: str
    category: str
    attributes: Sequence[tuple[str, str]]
    others: Sequence[SmallPicture] = ()
    num_more: int = 0


def where_texts(query: Query) -> list[str]:
    """Returns the filters as addresses and forms have them."""
    return [f"{column}:{value}" for column, values in query.where.items() for value in values]


def answer_column(served: ServedBundle, answer: Answer, query: Query) -> FilterColumn:
    """Returns an answer as cards."""
    cards = [_card(hit, served, answer.generation, query) for hit in answer.hits]
    return FilterColumn(served, answer, cards, by_item=query.products == "all")


def compared(columns: Sequence[FilterColumn]) -> list[FilterColumn]:
    """Returns the columns with every card's rank in the other one noted.

    Nothing is noted where there are not two answers.
    """
    answered = [column for column in columns if column.answer is not None]
    if len(answered) < 2:
        return list(columns)
    ranks = {
        column.served.name: {_identity(card, column): card.rank for card in column.cards}
        for column in answered
    }
    noted = []
    for column in columns:
        others = {name: found for name, found in ranks.items() if name != column.served.name}
        cards = [
            replace(card, elsewhere={n: r.get(_identity(card, column)) for n, r in others.items()})
            for card in column.cards
        ]
        noted.append(replace(column, cards=cards))
    return noted


def _identity(card: Card, column: FilterColumn) -> str:
    """Returns what makes a card of another bundle the same: two may show one product's pictures."""
    return card.item_id if column.by_item else card.product


def window(query: Query, served: ServedBundle, page: int) -> Window:
    """Returns a page of the catalogue.

    A page takes every P-th item of P pages, so that each shows items from all over the catalogue
    and all pages together show every item once.
    """
    snapshot = served.snapshot
    bundle = snapshot.bundle
    unknown = [column for column in query.where if column not in bundle.columns]
    where = query.where or None
    by_product = query.products != "all"
    total = 0 if unknown else bundle.count(where, by_product=by_product)
    num_pages = max(1, math.ceil(total / WINDOW_SIZE))
    page = min(page, num_pages)
    cards = []
    for start in range(page - 1, total, num_pages):
        for item_id in bundle.item_ids(where=where, start=start, limit=1, by_product=by_product):
            cards.append(_card(_unranked(bundle, item_id), served, snapshot.generation, query))

    def address(number: int) -> str:
        return link(
            "/", where=where_texts(query), k=query.k, bundle=query.bundles,
            products=chosen_products(query.products), page=number if number > 1 else None,
        )  # fmt: skip

    return Window(
        served,
        cards,
        total,
        page,
        num_pages,
        before=address(page - 1) if page > 1 else None,
        after=address(page + 1) if page < num_pages else None,
    )


def page_filters(query: Query, chosen: Sequence[ServedBundle]) -> list[Filter]:
    """Returns what can be filtered by in the chosen bundles, with what the query has chosen."""
    columns = dict.fromkeys(
        [column for served in chosen for column in served.snapshot.filters] + [*query.where]
    )
    return [
        column_filter(column, query, chosen, is_open=position < MAX_OPEN_FILTERS)
        for position, column in enumerate(columns)
    ]


def column_filter(
    column: str,
    query: Query,
    chosen: Sequence[ServedBundle],
    *,
    contains: str = "",
    is_open: bool = True,
) -> Filter:
    """Returns one column's filter: what the query has chosen, and the most frequent of the others.

    A value's number is the largest of the bundles: they often hold the same catalogue. More than
    `MAX_FILTER_VALUES` are not shown: 20,000 boxes are a page of 4 MB.

    Args:
        column: Its name.
        query: What is chosen.
        chosen: The bundles.
        contains: Show values that hold this text, in large or small letters.
        is_open: Unfolded even where nothing is chosen.
    """
    every = [served.snapshot.filters.get(column, {}) for served in chosen]
    looked_for = contains.strip().casefold()
    fitting = [[text for text in values if looked_for in text.casefold()] for values in every]
    wanted = query.where.get(column, ())
    shown = {*wanted, *(text for texts in fitting for text in texts[:MAX_FILTER_VALUES])}
    numbers = {text: max((values.get(text, 0) for values in every), default=0) for text in shown}
    choices = [
        FilterChoice(text or "(none)", f"{column}:{text}", numbers[text], text in wanted)
        for text in sorted(shown, key=lambda text: (-numbers[text], text))
    ]
    num_fitting, num_values = (max(map(len, texts), default=0) for texts in (fitting, every))
    return Filter(column, choices, is_open or bool(wanted), num_fitting, num_values)


def query_summary(query: Query, bundles: Sequence[ServedBundle], preview: str) -> QuerySummary:
    """Returns what was looked for."""
    if query.image is not None:
        return QuerySummary(preview, query.image_name or "your picture", "", ())
    assert query.item_id is not None
    for served in bundles:
        snapshot = served.snapshot
        if query.item_id in snapshot.bundle:
            asked = _card(
                _unranked(snapshot.bundle, query.item_id), served, snapshot.generation, query
            )
            return QuerySummary(
                asked.picture, asked.product, asked.category, asked.attributes, asked.others,
                asked.num_more,
            )  # fmt: skip
    raise AssertionError("an item that no bundle holds is refused before")


def thumbnail_link(item_id: str, bundle: str, generation: int) -> str:
    """Returns the address of an item's picture for a page; new with every generation."""
    return link("/thumbnail", bundle=bundle, item=item_id, generation=generation)


def _unranked(bundle: Bundle, item_id: str) -> Hit:
    """Returns an item of the catalogue as if it were found, at rank 0."""
    item = dict(bundle.item(item_id))
    own_id, product = item.pop("item_id"), bundle.product_of(item_id)
    others = tuple(one for one in bundle.pictures_of(product) if one != own_id)
    return Hit(0, own_id, item.pop("category"), 0.0, item, product, others)


def _card(hit: Hit, served: ServedBundle, generation: int, query: Query) -> Card:
    def similar(item_id: str) -> str:
        return link(
            "/", item=item_id, k=query.k, where=where_texts(query), bundle=query.bundles,
            products=chosen_products(query.products),
        )  # fmt: skip

    own_column = served.snapshot.bundle.product_column
    others = [
        SmallPicture(one, thumbnail_link(one, served.name, generation), similar(one))
        for one in hit.pictures[:MAX_SHOWN_PICTURES]
    ]
    return Card(
        hit.item_id,
        hit.product,
        hit.category,
        _telling({name: text for name, text in hit.attributes.items() if name != own_column}),
        thumbnail_link(hit.item_id, served.name, generation),
        similar(hit.item_id),
        others,
        len(hit.pictures) - len(others),
        hit.rank,
        hit.squared_distance if hit.rank else None,
    )


def _telling(attributes: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, text) for name, text in attributes.items() if text][:MAX_SHOWN_ATTRIBUTES]
