"""A table described once: what its writers make of it."""

from __future__ import annotations

import io

from rich.console import Console

from visual_search.views.table import (
    Cell,
    Row,
    Table,
    TableColumn,
    cells,
    markdown,
    terminal,
    valued,
)

TEST = "+0.256 [+0.130, +0.383]"


def table() -> Table:
    rows = [
        Row(cells("a|b \x1b[2J", valued("0.4", 0.4, "[0.3, 0.5]"), Cell(mark={}), TEST), "run"),
        Row(cells("", "0.5", Cell(), ""), "floor"),
        Row(cells("long name " * 9, "", Cell(), ""), "rest"),
        Row(cells("micro mean", "0.45", Cell(), ""), "mean"),
    ]
    columns = [TableColumn("Run", "name"), TableColumn("mAP@5", with_ends=True)]
    columns += [TableColumn("0.6", "mark", narrow=False), TableColumn("A long head of a number")]
    return Table("[bold]Runs", columns, rows, "Beside it.")


def printed(shown: Table) -> list[str]:
    console = Console(file=io.StringIO(), width=60)
    console.print(terminal(shown))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_a_terminal_keeps_numbers_whole_and_intervals_in_line() -> None:
    lines = printed(table())
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 60
    assert "[bold]Runs" in text
    assert "\x1b" not in text
    assert "(empty)" in text
    assert TEST in text
    (first,) = (line for line in lines if TEST in line)
    (second,) = (line for line in lines if "0.5 " in line and "(empty)" in line)
    assert first.index("0.4 [0.3, 0.5]") == second.index("0.5 ")
    assert second.index("\u2013") == first.index("0.5]") + 3  # below the end of the interval
    assert lines[-1].strip() == "Beside it."


def test_a_table_without_rows_has_its_head() -> None:
    assert "Run" in "\n".join(printed(Table("", table().columns, [])))


def test_markdown_has_all_columns_and_no_markup_of_names() -> None:
    lines = markdown(table()).splitlines()
    assert lines[:2] == ["| Run | mAP@5 | A long head of a number |", "| --- | --: | --: |"]
    assert lines[2] == f"| a&#124;b  \\[2J | 0.4 [0.3, 0.5] | {TEST} |"
    assert len(lines) == 6
