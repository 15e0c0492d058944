"""What the check of a catalogue prints: numbers, categories, findings, where the page lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.wording import count, many, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.catalog.checks import Finding
    from visual_search.views.table import Table

REPORT_FILE, FINDINGS_FILE = "report.html", "findings.json"
_NAMED_IN_TERMINAL = 5
_CATEGORIES_IN_TERMINAL = 20
_STYLES = {"error": "bold red", "warning": "yellow", "note": ""}


@dataclass(frozen=True, eq=False)
class Checked:
    """What a check found, and where it lies.

    Attributes:
        folder: With the page and the findings.
        cached: The catalogue with its splits, and its decoded pictures.
        findings: The gravest first.
        categories: One row a category, the largest first.
        attributes: One row an attribute.
        pictures: One row a format and mode.
        rule: What the gallery keeps, in a sentence.
        commands: What each is for, and what trains on it as it was read, or measures on it where
            it has nothing to train on; none where it cannot be told.
    """

    folder: Path
    cached: CachedCatalog
    findings: tuple[Finding, ...]
    categories: pd.DataFrame
    attributes: pd.DataFrame
    pictures: pd.DataFrame
    rule: str
    commands: Sequence[tuple[str, str]] = ()

    def num(self, severity: str) -> int:
        """Returns how many findings have this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def use(self) -> str:
        """What it is for: to train on, or where all of it is test, to measure on."""
        trains = len(self.cached.catalog.rows_of_split("train"))
        return "train on" if trains else "measure a run on"

    @property
    def standing(self) -> str:
        """Is it fit for its use, in a sentence with the share that was left out."""
        from visual_search.catalog.checks import left_out

        counts = [
            many(number, severity)
            for severity in ("error", "warning", "note")
            if (number := self.num(severity))
        ]
        found = ", ".join(counts) or "nothing found"
        catalog = self.cached.catalog
        if catalog.refused:
            found += f"; {left_out(len(catalog.refused), len(catalog))}"
        verdict = f"Not fit to {self.use} as it is" if self.num("error") else f"Fit to {self.use}"
        return f"{verdict}: {found}."


def print_check(checked: Checked) -> None:
    """Prints the catalogue in numbers, its categories, the findings, and where the page lies."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from visual_search.runs.catalogs import told
    from visual_search.views.table import terminal

    console = Console(highlight=False, emoji=False)
    catalog = checked.cached.catalog
    console.print(f"{shown(catalog.name)}", style="bold", markup=False)
    for line in told(catalog.choices):
        console.print(f"  {shown(line)}", markup=False, soft_wrap=True)
    for name, (value, remark) in numbers_of(checked).items():
        console.print(f"  {name + ':':<20}{value}{f' ({remark})' if remark else ''}", markup=False)
    console.print("")
    console.print(terminal(_category_table(checked.categories)))
    console.print(shown(checked.rule), markup=False)
    console.print("")
    for finding in checked.findings:
        if finding.kind == "choices":  # told above
            continue
        style = _STYLES[finding.severity]
        what = "\n".join(map(shown, finding.what.splitlines()))
        console.print(f"{finding.severity}: {what}", style=style, markup=False)
        for line in _named_lines(finding):
            console.print(f"    {shown(line)}", markup=False, soft_wrap=True)
        console.print(Padding(Text(f"-> {shown(finding.advice)}"), (0, 0, 0, 4), expand=False))
    console.print(f"\n{checked.standing}\n", style="bold", markup=False)
    for name, what in ((REPORT_FILE, "with pictures"), (FINDINGS_FILE, "every one by name")):
        console.print(f"  {checked.folder / name}  {what}", markup=False, soft_wrap=True)
    for use, command in checked.commands:
        console.print(f"\n{use}:", markup=False)
        # by itself on its line, so that it can be copied; print, as rich would wrap it
        print(f"  {command}")


def _named_lines(finding: Finding) -> Sequence[str]:
    """Returns the first items of a finding by name; of what was refused and leaks the most."""
    most = 3 * _NAMED_IN_TERMINAL if finding.severity == "error" else _NAMED_IN_TERMINAL
    most = most if finding.severity != "note" else 0
    lines = []
    for item in finding.items[:most]:
        beside = f" ({item.other_id})" if finding.names_pictures else f" beside {item.other_id}"
        beside = beside if item.other_id else ""
        lines.append(f"{item.item_id}{beside}{f': {item.why}' if item.why else ''}")
    rest = finding.num_items - len(lines)
    return [*lines, f"... and {rest:,} more"] if lines and rest else lines


def _category_table(categories: pd.DataFrame) -> Table:
    from visual_search.views.table import Row, Table, TableColumn, cells

    columns = ("items", "groups", "train", "val", "test", "gallery", "queries")
    rows = [
        Row(cells(line["category"], *(count(line[name]) for name in columns)))
        for line in categories.head(_CATEGORIES_IN_TERMINAL).to_dict("records")
    ]
    rest = categories.iloc[_CATEGORIES_IN_TERMINAL:]
    if len(rest):
        sums = [count(rest[name].sum()) for name in columns]
        rows.append(Row(cells(f"{len(rest):,} more", *sums), "rest"))
    titles = [TableColumn(name.capitalize()) for name in columns]
    return Table("", [TableColumn("Category", "name"), *titles], rows)


def numbers_of(checked: Checked) -> dict[str, tuple[str, str]]:
    """Returns the catalogue in numbers: name -> value and a remark."""
    catalog = checked.cached.catalog
    groups = catalog.table["group"].value_counts()
    splits = {split: len(catalog.rows_of_split(split)) for split in ("train", "val", "test")}
    least, most = checked.categories["items"].min(), checked.categories["items"].max()
    return {
        "Items": (f"{len(catalog):,}", f"{len(catalog.refused):,} refused"),
        "Categories": (
            f"{len(checked.categories):,}",
            f"{least:,} to {most:,} items" if least < most else f"{many(least, 'item')} each",
        ),
        "Groups": (f"{len(groups):,}", f"at most {many(int(groups.iloc[0]), 'item')}"),
        "Train": (f"{splits['train']:,}", f"{splits['val']:,} val, {splits['test']:,} test"),
        "Attributes": (f"{len(checked.attributes):,}", ""),
    }
