"""A table described once, and its writers: the terminal, Markdown; pages have a macro of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from visual_search.wording import MISSING, Number, as_float, escaped, is_missing, shown

if TYPE_CHECKING:
    from rich.table import Table as Written

Sign = Literal["", "above", "below", "unclear", "same"]
_SHORT_HEAD = 8  # letters, which no column is too narrow for
_STYLES = {"run": "bold", "mean": "bold", "rest": "dim"}


@dataclass(frozen=True)
class TableColumn:
    """A column, and where there is room for it.

    Attributes:
        title: Its head.
        kind: ``name`` and ``words`` are set to the left, ``number`` to the right; ``mark`` draws
            the bar and whisker of its cells, on pages alone.
        narrow: A terminal, which may have 80 columns, has it.
        on_page: A page, which has links, has it.
        with_ends: There it has the intervals of its cells too.
    """

    title: str
    kind: Literal["name", "number", "words", "mark"] = "number"
    narrow: bool = True
    on_page: bool = True
    with_ends: bool = False


@dataclass(frozen=True)
class Cell:
    """What stands in a row and column.

    Attributes:
        text: As it is read.
        ends: The interval beside it, as `wording.interval` writes it.
        rough: Few groups carry the interval.
        value: To sort by; None where there is none.
        href: Where a page links to.
        tag: A word beside it, such as "few".
        mark: Of a bar, from `html_page.mark`; ``floor_at`` draws a dotted line there.
        sign: What a test says of the number; a page draws it.
    """

    text: str = ""
    ends: str = ""
    rough: bool = False
    value: float | None = None
    href: str = ""
    tag: str = ""
    mark: Mapping[str, float] | None = None
    sign: Sign = ""


@dataclass(frozen=True)
class Row:
    """Cells in the columns' order.

    Attributes:
        cells: One a column.
        kind: A ``run`` and a ``mean`` over all rows stand out, the ``rest`` recedes.
    """

    cells: Sequence[Cell]
    kind: Literal["", "run", "floor", "mean", "rest"] = ""


@dataclass(frozen=True)
class Table:
    """What is written.

    Attributes:
        title: What the rows are.
        columns: From left to right.
        rows: From top to bottom.
        caption: Below it, in a terminal.
    """

    title: str
    columns: Sequence[TableColumn]
    rows: Sequence[Row]
    caption: str = ""


def cells(*contents: str | Cell) -> tuple[Cell, ...]:
    """Returns cells of what needs no more than its text."""
    return tuple(one if isinstance(one, Cell) else Cell(one) for one in contents)


def valued(text: str, value: Number, ends: str = "", *, rough: bool | None = False) -> Cell:
    """Returns the cell of a number, which is sorted by the number."""
    return Cell(text, ends, bool(rough), None if is_missing(value) else as_float(value))


def terminal(table: Table) -> Written:
    """Returns the table for rich: rules without a frame, narrow enough for 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Written
    from rich.text import Text

    title = Text(shown(table.title)) if table.title else None
    caption = Text(table.caption) if table.caption else None
    written = Written(
        title=title, caption=caption, box=SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1)
    )
    for place, column in enumerate(table.columns):
        if not column.narrow:
            continue
        head = Text(f"{column.title} [95 %]" if column.with_ends else column.title)
        if column.kind == "number":  # breaks in its head alone
            longest = max((len(text) for text in _narrow(table, place)), default=0)
            fits = len(head) <= max(longest, _SHORT_HEAD)
            written.add_column(head, justify="right", overflow="fold", no_wrap=fits)
        else:
            written.add_column(head, overflow="fold")
    texts = [_narrow(table, place) for place, column in enumerate(table.columns) if column.narrow]
    for number, (row, line) in enumerate(zip(table.rows, zip(*texts, strict=True), strict=True)):
        if row.kind == "mean" and table.rows[number - 1].kind != "mean":
            written.add_section()
        written.add_row(*map(Text, line), style=_STYLES.get(row.kind, ""))
    return written


def _narrow(table: Table, place: int) -> list[str]:
    """Returns a column as a terminal has it: intervals below each other, names harmless."""
    column, held = table.columns[place], [row.cells[place] for row in table.rows]
    if column.kind != "number":
        return [shown(cell.text) for cell in held]
    if not column.with_ends:
        return [cell.text for cell in held]
    widest = max((len(cell.ends) for cell in held), default=0)
    return [f"{cell.text} {cell.ends or MISSING:>{widest}}" if cell.text else "" for cell in held]


def markdown(table: Table) -> str:
    """Returns the table as Markdown: all columns, with intervals; names are data, never markup."""
    places = [place for place, column in enumerate(table.columns) if column.kind != "mark"]
    columns = [table.columns[place] for place in places]
    rows = [[row.cells[place] for place in places] for row in table.rows]
    lines = [
        [escaped(column.title) for column in columns],
        ["--:" if column.kind == "number" else "---" for column in columns],
        *([_in_markdown(*pair) for pair in zip(row, columns, strict=True)] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _in_markdown(cell: Cell, column: TableColumn) -> str:
    text = f"{cell.text} {cell.ends}".strip()
    return text if column.kind == "number" else escaped(text)  # numbers are ours
