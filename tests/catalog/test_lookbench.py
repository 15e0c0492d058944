from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.catalog.shops import one_refused, refuses
from tests.composing import typed
from visual_search.catalog.catalog import Catalog
from visual_search.config.builders import build
from visual_search.retrieval.protocols import published

SUBSET = "v20251201/real_studio_flat"


def written(path: Path, *rows: tuple[str, str, str], **more: list[Any]) -> None:
    """Rows of item, category and main attribute, each with a picture that names it."""
    items, categories, attributes = zip(*rows, strict=True)
    columns = {
        "image": [{"bytes": f"{path.name} {place}".encode(), "path": None}
                  for place in range(len(rows))],
        "category": list(categories), "main_attribute": list(attributes),
        "other_attributes": [["long", "v-neck"]] * len(rows), "bbox": [[0, 0, 1, 1]] * len(rows),
        "item_ID": list(items), "difficulty": ["easy"] * len(rows),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns | more), path)


def bench(root: Path) -> Path:
    written(root / SUBSET / "query.parquet", ("7", "Kleid", "floral"), ("8", "shoe", "plain"))
    written(root / SUBSET / "gallery.parquet", ("8", "shoe", "plain"), ("7", "Kleid", "floral"))
    written(root / "v20251201/noise/noise_0.parquet", ("99", "Kleid", "floral"))
    written(root / "v20251201/aigen_studio/query.parquet", ("7", "Kleid", "floral"))
    return root


def read(path: Path, on_bad_item: str = "error", files: str = "") -> Catalog:
    said = ["data=lookbench", f"data.path={path}", f"data.on_bad_item={on_bad_item}"]
    said += [f"data.files={files}"] if files else []
    catalog: Catalog = build("data", typed("check", *said).data)
    return catalog


IDS = ["v20251201/noise/noise_0.parquet#0", *(f"{SUBSET}/gallery.parquet#{n}" for n in (0, 1)),
       *(f"{SUBSET}/query.parquet#{n}" for n in (0, 1))]  # fmt: skip


def test_files_become_sides(tmp_path: Path) -> None:
    catalog = read(bench(tmp_path))
    table = catalog.table
    assert table.to_dict("list") == {
        "item_id": IDS,
        "image": IDS,
        "category": ["Kleid", "shoe", "Kleid", "Kleid", "shoe"],
        "group": ["99", "8", "7", "7", "8"],
        "split": ["test"] * 5,
        "main_attribute": ["floral", "plain", "floral", "floral", "plain"],
        "difficulty": ["easy"] * 5,
        "is_query": list("00011"),
        "is_gallery": list("11100"),
    }
    assert catalog.name == "lookbench"
    assert catalog.source.load(IDS[4]) == b"query.parquet 1"
    assert "bbox, other_attributes" in str(catalog.choices[0])
    sides = published(relevance=["group"]).choose(table, "test")
    assert (list(sides.query_rows), list(sides.gallery_rows)) == ([3, 4], [0, 1, 2])
    few = read(tmp_path, files="[aigen_studio/*,noise/noise_?.parquet]")
    assert few.table["is_query"].tolist() == ["1", "0"]


def test_what_is_refused(tmp_path: Path) -> None:
    bench(tmp_path)
    refuses(FileNotFoundError, r"names 'x/\*', which fits none of \['v2025", read, tmp_path,
            files="[x/*]")  # fmt: skip
    refuses(FileNotFoundError, r"data\.sides=true, and none .*noise_0.*expected one of queries",
            read, tmp_path, files="[noise/*]")  # fmt: skip
    written(tmp_path / SUBSET / "query-2.parquet", ("7", "", "floral"))
    assert one_refused(r"query-2\.parquet, row 0: the category is empty", read, tmp_path) == IDS
    written(tmp_path / SUBSET / "query-2.parquet", ("7", "Kleid", "floral"), image=[None])
    refuses(ValueError, "image", read, tmp_path)
    (tmp_path / SUBSET / "query-2.parquet").write_bytes(b"PAR1")
    refuses(ValueError, r"query-2\.parquet is not a readable Parquet file", read, tmp_path)
