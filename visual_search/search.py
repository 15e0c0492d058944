"""Searches a bundle for what looks like a picture: table, picture grid or JSON.

``python -m visual_search.search bundle=DIR image=PATH``; ``--help`` lists what can be set.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError, one_of
from visual_search.config.schemas import SearchSchema
from visual_search.wording import listed, many, shown, three_digits

if TYPE_CHECKING:
    from rich.table import Table

    from visual_search.bundle.bundle import Bundle, Hit
    from visual_search.bundle.products import ByProduct

FORMATS = ("table", "json")
MAX_OTHERS = 3  # of a product's other pictures, named in the table; JSON has them all
INLINE = ("auto", "never")
SQUARED_DISTANCE = "d² is the squared Euclidean distance of two embeddings"


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("search", search_command)


def search_command(settings: SearchSchema) -> None:
    """Searches the bundle that the composed config names, and prints what it finds."""
    print_search(search_bundle(settings), settings)


@dataclass(frozen=True)
class QueryAnswer:
    """What one query found.

    Attributes:
        query: The picture's path, or the item's id.
        picture: The picture that asked, encoded.
        hits: The nearest first.
    """

    query: str
    picture: bytes
    hits: tuple[Hit, ...]

    @property
    def title(self) -> str:
        """The picture's name without its folders, or the item's id."""
        return Path(self.query).name if Path(self.query).is_file() else self.query


@dataclass(frozen=True)
class Searched:
    """The answers of a search.

    Attributes:
        bundle: Where it searched.
        answers: One a query, in the order in which they were asked.
        k: Neighbours that were asked for.
        products: How products of several pictures were found.
    """

    bundle: Bundle
    answers: tuple[QueryAnswer, ...]
    k: int
    products: ByProduct


def search_bundle(settings: SearchSchema) -> Searched:
    """Searches a bundle for what looks like pictures, or like items of its own.

    Args:
        settings: The composed ``conf/search.yaml``.

    Raises:
        ConfigError: No bundle or nothing to search for is named, or a setting is wrong.
        FileNotFoundError: The bundle or a picture is not there.
        ValueError: The bundle is damaged, or a picture does not decode.
    """
    from visual_search.bundle.bundle import Bundle, Verify
    from visual_search.bundle.products import ByProduct
    from visual_search.runs.vector_database import searched_through
    from visual_search.views.progress import progress_bar

    if not settings.bundle:
        raise ConfigError(
            "no bundle is named; expected bundle=DIR, the folder that "
            "`python -m visual_search.export run=PATH out=DIR` made, or its address s3://BUCKET/DIR"
        )
    pictures, items = _several(settings.image), _several(settings.item)
    if not pictures and not items:
        raise ConfigError(
            "nothing to search for; expected image=PICTURE, image=[ONE,TWO], or item=ID of an item "
            "in the bundle"
        )
    one_of("format", settings.format, FORMATS)
    products: ByProduct = one_of("products", settings.products, get_args(ByProduct))
    one_of("inline", settings.inline, INLINE)
    verify = one_of("verify", settings.verify, get_args(Verify))
    if settings.k < 1:
        raise ConfigError(f"k={settings.k}; expected at least 1: set k=5")
    out = Path(settings.out or "grid.png")
    if out.suffix.lower() != ".png":
        raise ConfigError(
            f"out={out}; expected a name that ends with .png, which the grid is: set "
            f"out={out.parent / (out.stem or 'grid')}.png"
        )
    through = searched_through(settings.index, settings.url, settings.collection)
    with progress_bar("Copying", " files") as advance:
        bundle = Bundle.open(
            settings.bundle,
            verify=verify,
            num_threads=settings.num_threads,
            through=through,
            on_progress=advance,
        )
    where = _where(bundle, settings)
    answers = _of_pictures(bundle, pictures, settings.k, where, products)
    answers += _of_items(bundle, items, settings.k, where, products)
    return Searched(bundle, tuple(answers), settings.k, products)


def _several(value: str | list[str] | None) -> list[str]:
    """Returns the texts of a setting that is one text or a list."""
    return list(value) if isinstance(value, list) else [value] if value is not None else []


def _where(bundle: Bundle, settings: SearchSchema) -> dict[str, list[str]]:
    """Returns the filters, and refuses values that no item has, naming the nearest that one has."""
    where = {name: _several(value) for name, value in (settings.where or {}).items()}
    if settings.category is not None:
        where["category"] = _several(settings.category)
    for column, values in where.items():
        if column not in bundle.columns:
            raise ConfigError(
                f"where names the column {column!r}; expected one of {', '.join(bundle.columns)}"
            )
        known = bundle.values_of(column)
        for value in values:
            if value in known:
                continue
            close = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
            shown = ", ".join(repr(one) for one in list(known)[:8])
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"no item has the {column} {value!r}; expected one of {shown}"
                f"{', ...' if len(known) > 8 else ''}{hint}"
            )
    return where


def _of_pictures(
    bundle: Bundle,
    paths: Sequence[str],
    k: int,
    where: Mapping[str, Sequence[str]],
    products: ByProduct,
) -> list[QueryAnswer]:
    import numpy as np

    from visual_search.catalog.images import PictureError

    if not paths:
        return []
    data, decoded = [], []
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no picture at {path}; expected a file: check image=")
        data.append(Path(path).read_bytes())
        try:
            decoded.append(bundle.encoder.decode(data[-1]))
        except PictureError as error:
            raise ValueError(f"{path}: {error}") from error
    embeddings = bundle.encoder.embed(np.stack(decoded))
    found = bundle.search(embeddings, k, where=where, products=products)
    return [
        QueryAnswer(path, picture, tuple(hits))
        for path, picture, hits in zip(paths, data, found, strict=True)
    ]


def _of_items(
    bundle: Bundle,
    item_ids: Sequence[str],
    k: int,
    where: Mapping[str, Sequence[str]],
    products: ByProduct,
) -> list[QueryAnswer]:
    import numpy as np

    if not item_ids:
        return []
    for item_id in item_ids:
        if item_id not in bundle:
            raise ConfigError(
                f"no item {item_id!r} in {bundle.place}; expected an id of one of its "
                f"{bundle.holding}, such as {bundle.item_ids(limit=1)[0]!r}"
            )
    embeddings = np.stack([bundle.embedding_of(item_id) for item_id in item_ids])
    found = bundle.search(embeddings, k, where=where, exclude_ids=list(item_ids), products=products)
    return [
        QueryAnswer(item_id, bundle.thumbnail(item_id), tuple(hits))
        for item_id, hits in zip(item_ids, found, strict=True)
    ]


def save_grid(searched: Searched, path: str | Path) -> Path:
    """Writes the answers as a picture grid, PNG."""
    from visual_search.atomic import atomic_path

    target = Path(path)
    with atomic_path(target) as temporary:
        temporary.write_bytes(grid_png(searched))
    return target


def grid_png(searched: Searched) -> bytes:
    """Returns the grid of pictures as a PNG file."""
    import io

    from visual_search.catalog.thumbnails import thumbnail
    from visual_search.views.search_grid import MAX_SMALL, GridPicture, GridRow, draw_grid

    bundle = searched.bundle
    rows = [
        GridRow(
            GridPicture(
                thumbnail(answer.picture) if answer.picture else b"", ("query", answer.title)
            ),
            tuple(
                GridPicture(
                    bundle.thumbnail(hit.item_id),
                    (
                        f"{hit.rank} · {hit.item_id}",
                        hit.category,
                        f"d² {three_digits(hit.squared_distance)}",
                    ),
                    tuple(bundle.thumbnail(other) for other in hit.pictures[:MAX_SMALL]),
                )
                for hit in answer.hits
            ),
        )
        for answer in searched.answers
    ]
    file = io.BytesIO()
    draw_grid(rows).save(file, "PNG")
    return file.getvalue()


def print_search(searched: Searched, settings: SearchSchema) -> None:
    """Prints the answers as tables or JSON; writes the grid where one is asked for."""
    out = save_grid(searched, settings.out) if settings.out else None
    if settings.format == "json":
        print(json.dumps(_plain(searched, out), ensure_ascii=False, indent=2))
        return
    _print_inline(searched, settings.inline)
    for answer in searched.answers:
        _print_table(searched, answer)
    print(f"{searched.bundle.name}: {searched.bundle.holding}; {SQUARED_DISTANCE}.")
    if out is not None:
        print(f"Pictures: {out}")


def _plain(searched: Searched, out: Path | None) -> dict[str, object]:
    bundle = searched.bundle
    return {
        "bundle": {
            "name": bundle.name,
            "generation": bundle.manifest.generation,
            "num_items": len(bundle),
            "num_products": bundle.num_products,
        },
        "k": searched.k,
        "answers": [
            {
                "query": answer.query,
                "hits": [
                    {
                        "rank": hit.rank,
                        "item_id": hit.item_id,
                        "category": hit.category,
                        "squared_distance": hit.squared_distance,
                        "attributes": dict(hit.attributes),
                        "product": hit.product,
                        "pictures": list(hit.pictures),
                    }
                    for hit in answer.hits
                ],
            }
            for answer in searched.answers
        ],
        "grid": None if out is None else str(out),
    }


def _print_inline(searched: Searched, inline: str) -> None:
    from visual_search.views.terminal_pictures import inline_picture, picture_protocol

    if inline == "never":
        return
    protocol = picture_protocol(os.environ, is_terminal=sys.stdout.isatty())
    if protocol is not None:
        sys.stdout.write(inline_picture(grid_png(searched), protocol))


def _print_table(searched: Searched, answer: QueryAnswer) -> None:
    from rich.console import Console
    from rich.markup import escape

    bundle = searched.bundle
    console = Console()
    console.print(
        f"Like [bold]{escape(shown(answer.title))}[/bold]", soft_wrap=True, highlight=False
    )
    table = _table(answer, bundle)
    unbounded = console.options.update(width=10_000)
    if console.measure(table, options=unbounded).maximum > console.width:
        table = _table(answer, bundle, in_one=True)
    console.print(table)
    if len(answer.hits) < searched.k:
        what = "product" if bundle.is_by_picture and searched.products != "all" else "item"
        matches = many(len(answer.hits), f"{what} matches", f"{what}s match")
        console.print(f"No more than {matches}.")


def _cell(text: str) -> str:
    """Returns a text of the data as a table's cell; what is missing stays empty."""
    from rich.markup import escape

    return escape(shown(text)) if text else ""


def _names(hit: Hit) -> tuple[str, str, str]:
    """Returns a hit's product, the picture that was found, and some of its other pictures."""
    return hit.product, hit.item_id, listed(hit.pictures, MAX_OTHERS)


def _table(answer: QueryAnswer, bundle: Bundle, *, in_one: bool = False) -> Table:
    """Returns the hits as a table; the attributes share one column where each has no room."""
    from rich.markup import escape
    from rich.table import Table

    attributes = bundle.attributes
    in_one = in_one and bool(attributes)
    table = Table(expand=in_one)  # so that the shared column takes what the others leave
    table.add_column("Rank", justify="right", no_wrap=True)
    if bundle.is_by_picture:
        table.add_column("Product", overflow="fold")
        table.add_column("Picture", overflow="fold")
        table.add_column("Others", overflow="fold", ratio=1 if in_one else None)
    else:
        table.add_column("Item", overflow="fold")
    table.add_column("Category", overflow="fold")
    table.add_column("d²", justify="right", no_wrap=True)
    for name in [" · ".join(attributes)] if in_one else attributes:
        table.add_column(escape(name), overflow="fold", ratio=1 if in_one else None)
    for hit in answer.hits:
        texts = [_cell(hit.attributes.get(name, "")) for name in attributes]
        if in_one:
            texts = [" · ".join(texts)]
        table.add_row(
            str(hit.rank),
            *map(_cell, _names(hit) if bundle.is_by_picture else [hit.item_id]),
            _cell(hit.category),
            three_digits(hit.squared_distance),
            *texts,
        )
    return table


if __name__ == "__main__":
    main()
