"""What a command says of the data that it read, and how much of it may be left out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.composing import typed
from visual_search.runs.catalogs import build_catalog
from visual_search.runs.identity import run_hash
from visual_search.runs.parts import Parts


def shop(folder: Path, num_missing: int) -> Path:
    """A table of 40 items of which some have no picture."""
    lines = ["item_id;image;category"]
    for number in range(40):
        lines.append(f"{number};{number}.jpg;{('Hüte', 'Schuhe')[number % 2]}")
        if number >= num_missing:
            (folder / f"{number}.jpg").write_bytes(b"")
    (folder / "products.csv").write_bytes("\n".join(lines).encode("cp1252"))
    return folder / "products.csv"


def settings(path: Path, *overrides: str) -> Any:
    return typed("train", "data=table", f"data.path={path}", *overrides)


def test_what_the_reader_found_out_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = settings(shop(tmp_path, 0)).data
    catalog = build_catalog(node)
    printed = capsys.readouterr().out
    assert "data.separator=';'" in printed
    assert "data.encoding=cp1252" in printed
    assert "Hüte" in printed
    told = build_catalog(node | {"separator": ";", "encoding": "cp1252"})
    assert capsys.readouterr().out == ""
    assert told.table.equals(catalog.table)


def test_what_the_reader_found_out_is_kept_with_the_run(tmp_path: Path) -> None:
    parts = Parts(settings(shop(tmp_path, 0)))
    before = run_hash(parts.settings, "x")
    catalog = parts.whole
    assert (parts.settings.data["separator"], parts.settings.data["encoding"]) == (";", "cp1252")
    assert run_hash(parts.settings, "x") == before
    assert Parts(parts.settings).whole.fingerprint() == catalog.fingerprint()


def test_a_tenth_may_be_left_out_and_more_where_it_is_allowed(tmp_path: Path) -> None:
    path = shop(tmp_path, 4)
    skip, skip_any = "data.on_bad_item=skip", "data.on_bad_item=skip_any"
    assert len(Parts(settings(path, skip), bound_left_out=True).catalog) == 36
    path = shop(tmp_path, 4)
    (tmp_path / "4.jpg").unlink()
    with pytest.raises(ValueError, match=r"5 of 40 .*data\.on_bad_item=skip_any"):
        len(Parts(settings(path, skip), bound_left_out=True).catalog)
    assert len(Parts(settings(path, skip_any), bound_left_out=True).catalog) == 35
    assert len(Parts(settings(path, skip)).catalog) == 35  # a run that is measured was trained so


def test_how_a_file_is_written_is_no_part_of_a_run(tmp_path: Path) -> None:
    path = shop(tmp_path, 0)
    own = settings(path, "data.on_bad_item=skip")
    digest = run_hash(own, "x")
    for change in ({"separator": ";"}, {"encoding": "cp1252"}, {"on_bad_item": "skip_any"}):
        assert run_hash(dataclasses.replace(own, data=own.data | change), "x") == digest
    older = {name: own.data[name] for name in own.data if name not in ("separator", "encoding")}
    assert (
        run_hash(dataclasses.replace(own, data=older), "x") == digest
    )  # as runs before the settings had it
    assert run_hash(dataclasses.replace(own, data=own.data | {"group": "sku"}), "x") != digest
