"""What the check of a catalogue prints: numbers, categories, findings, where the page lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.checking import FINDINGS_FILE, REPORT_FILE, Checked, numbers_of
from visual_search.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from visual_search.catalog.checks import Finding

_NAMED_IN_TERMINAL = 5
_CATEGORIES_IN_TERMINAL = 20
_STYLES = {"error": "bold red", "warning": "yellow", "note": ""}


def print_check(checked: Checked) -> None:
    """Prints the catalogue in numbers, its categories, the findings, and where the page lies."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False, emoji=False)
    console.print(f"{shown(checked.cached.catalog.name)}", style="bold", markup=False)
    for name, (value, remark) in numbers_of(checked).items():
        console.print(f"  {name + ':':<20}{value}{f' ({remark})' if remark else ''}", markup=False)
    console.print("")
    console.print(_category_table(checked.categories))
    console.print(shown(checked.rule), markup=False)
    console.print("")
    for finding in checked.findings:
        style = _STYLES[finding.severity]
        console.print(f"{finding.severity}: {shown(finding.what)}", style=style, markup=False)
        for line in _named_lines(finding):
            console.print(f"    {shown(line)}", markup=False, soft_wrap=True)
        console.print(Padding(Text(f"-> {shown(finding.advice)}"), (0, 0, 0, 4), expand=False))
    console.print(f"\n{checked.standing}\n", style="bold", markup=False)
    for name, what in ((REPORT_FILE, "with pictures"), (FINDINGS_FILE, "every one by name")):
        console.print(f"  {checked.folder / name}  {what}", markup=False, soft_wrap=True)


def _named_lines(finding: Finding) -> Sequence[str]:
    """Gives the first items of a finding by name; of what was refused and leaks the most."""
    most = 3 * _NAMED_IN_TERMINAL if finding.severity == "error" else _NAMED_IN_TERMINAL
    most = most if finding.severity != "note" else 0
    lines = []
    for item in finding.items[:most]:
        beside = f" ({item.other_id})" if finding.names_pictures else f" beside {item.other_id}"
        beside = beside if item.other_id else ""
        lines.append(f"{item.item_id}{beside}{f': {item.why}' if item.why else ''}")
    rest = finding.num_items - len(lines)
    return [*lines, f"... and {rest:,} more"] if lines and rest else lines


def _category_table(categories: pd.DataFrame) -> Any:
    from rich.table import Table
    from rich.text import Text

    from visual_search.reports.tables import table_style

    table = Table(**table_style())
    table.add_column("Category", overflow="fold")
    columns = ("items", "groups", "train", "val", "test", "gallery", "queries")
    for column in columns:
        table.add_column(column.capitalize(), justify="right")
    for line in categories.head(_CATEGORIES_IN_TERMINAL).to_dict("records"):
        table.add_row(Text(shown(line["category"])), *(f"{line[name]:,}" for name in columns))
    rest = categories.iloc[_CATEGORIES_IN_TERMINAL:]
    if len(rest):
        sums = [f"{int(rest[name].sum()):,}" for name in columns]
        table.add_row(Text(f"{len(rest):,} more"), *sums, style="dim")
    return table
