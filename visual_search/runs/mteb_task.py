"""A catalogue under a protocol as a folder that mteb measures any model of pictures on."""

from __future__ import annotations

import io
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.wording import many

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from visual_search.catalog.catalog import Catalog
    from visual_search.retrieval.protocol import Protocol, Selection
    from visual_search.retrieval.qrels import Pairs

MAX_PAIRS = 20_000_000  # mteb reads each into a dict of its own: some 3 GB
PICTURES_AT_ONCE = 64
KEPT_AS_THEY_ARE = ("JPEG", "PNG")  # where RGB, and the file says nothing of place or camera
OF_THE_CODING = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "progressive",
                 "progression", "interlace", "gamma", "srgb", "chromaticity"}  # fmt: skip

TASK = '''\
"""$wrapped

    pip install mteb
    python task.py openai/clip-vit-base-patch32

Any model that mteb loads by its name and that takes pictures. From Python:
mteb.evaluate(model, Task()).
"""

import sys
from pathlib import Path

import mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

K = $k
AP = f"map_at_{K}_over_min_r_k"


class Task(AbsTaskRetrieval):
    metadata = TaskMetadata(
        name=$name,
        description=(
$literal        ),
        dataset={"path": str(Path(__file__).resolve().parent / $data), "revision": $revision},
        type="Any2AnyRetrieval",
        category="i2i",
        modalities=["image"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=AP,
        is_public=False,
    )
    ignore_identical_ids = $ignore_identical_ids
    k_values = sorted({1, 3, 5, 10, 20, 100, 1000, K})

    def task_specific_scores(self, scores, qrels, results, hf_split, hf_subset):
        """mAP@k with AP = S / min(R, k): mteb's own map_at_k divides by R, however large."""
        found = []
        for query, value in scores.items():
            relevant = sum(grade > 0 for grade in qrels[query].values())
            found.append(value[f"map_cut_{K}"] * relevant / min(relevant, K))
        return {AP: sum(found) / len(found)}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python task.py MODEL, a name that mteb.get_model knows")
    model = mteb.get_model(sys.argv[1])
    found = mteb.evaluate(model, Task(), cache=None).task_results[0].scores["test"][0]
    print(f"{Task.metadata.name}, {sys.argv[1]}")
    for ours, theirs in (
        (f"mAP@{K}", AP),
        (f"precision@{K}", f"precision_at_{K}"),
        (f"recall@{K}", f"recall_at_{K}"),
        ("hit@1", "hit_rate_at_1"),
        (f"hit@{K}", f"hit_rate_at_{K}"),
        (f"MRR@{K}", f"mrr_at_{K}"),
        (f"nDCG@{K}", f"ndcg_at_{K}"),
    ):
        print(f"  {ours:<14}{found[theirs]:.5f}   {theirs}")
'''

CONFIG = """\
- config_name: {0}
  data_files:
  - split: test
    path: {0}/test.parquet
"""

CARD = """\
---
configs:
$configs---

# $name

$description

- Queries: $num_queries, of which mteb asks those with a relevant answer. Gallery: $num_gallery.
$rules

`python task.py MODEL`, in the folder above, measures a model that mteb loads by its name.
"""


def write_task(
    folder: Path,
    name: str,
    catalog: Catalog,
    protocol: Protocol,
    selection: Selection,
    revision: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes ``task.py`` and ``data-<revision>/``, whose ``README.md`` names its Parquet files.

    ``corpus`` and ``queries`` hold ``id`` and ``image``, ``qrels`` the relevant pairs; where a
    protocol hides more of the gallery from a query than itself, ``top_ranked`` holds what each may
    find.

    Args:
        folder: Empty.
        name: Of the task.
        catalog: Whose pictures decode.
        protocol: The rules.
        selection: The sides.
        revision: What the pictures and pairs are known by.
        on_progress: Called with (pictures written, all of them).

    Raises:
        ValueError: There are more pairs than mteb could read.
    """
    from visual_search.retrieval.qrels import admitted_pairs, hides_only_itself, relevant_pairs

    relevant = relevant_pairs(catalog.table, protocol, selection)
    _check_pairs(relevant, "relevant")
    admitted = None
    if not hides_only_itself(catalog.table, protocol, selection):
        admitted = admitted_pairs(catalog.table, protocol, selection)
        _check_pairs(admitted, "admitted")
    ids = catalog.table["item_id"].to_numpy(dtype=object)
    gallery, queries = ids[selection.gallery_rows], ids[selection.query_rows]
    total, done = len(gallery) + len(queries), 0
    # A name of its own: datasets keeps what it has read of a local folder by that alone.
    data = folder / f"data-{revision}"
    data.mkdir()
    for part, rows in (("corpus", selection.gallery_rows), ("queries", selection.query_rows)):

        def progress(written: int, done: int = done) -> None:
            if on_progress is not None:
                on_progress(done + written, total)

        _write_pictures(data / part / "test.parquet", catalog, rows, progress)
        done += len(rows)
    _write_pairs(data / "qrels" / "test.parquet", relevant, queries, gallery)
    if admitted is not None:
        _write_lists(data / "top_ranked" / "test.parquet", admitted, queries, gallery)
    sentences = protocol.sentences()
    description = (
        f"Pictures of {catalog.name} search for pictures: {sentences['relevance']} "
        f"{sentences['question']}"
    )
    parts = sorted(path.parent.name for path in data.glob("*/test.parquet"))
    values = {
        "name": name,
        "description": description,
        "wrapped": "\n".join(textwrap.wrap(description, 100)),
        "k": protocol.k,
        "revision": json.dumps(revision),
        "ignore_identical_ids": not protocol.counts_the_query,
        "num_queries": f"{len(queries):,}",
        "num_gallery": f"{len(gallery):,}",
        "rules": "\n".join(f"- {sentence}" for sentence in sentences.values()),
        "configs": "".join(map(CONFIG.format, parts)),
    }
    literal = "".join(
        f"            {json.dumps(line)}\n"
        for line in textwrap.wrap(description, 80, drop_whitespace=False)
    )
    quoted = {
        "data": json.dumps(data.name),
        "name": json.dumps(name),
        "literal": literal,
    }
    (folder / "task.py").write_text(_filled(TASK, values | quoted), encoding="utf-8")
    (data / "README.md").write_text(_filled(CARD, values), encoding="utf-8")


def task_name(catalog: Catalog, protocol: Protocol) -> str:
    """Returns a name of letters and digits, as mteb's tasks have.

    Raises:
        ValueError: Neither name has one.
    """
    words = re.findall(r"[A-Za-z0-9]+", f"{catalog.name} {protocol.title}")
    return "".join(word[:1].upper() + word[1:] for word in words)


def _filled(template: str, values: dict[str, Any]) -> str:
    return re.sub(r"\$(\w+)", lambda match: str(values[match[1]]), template)


def _check_pairs(pairs: Pairs, kind: str) -> None:
    if len(pairs) > MAX_PAIRS:
        raise ValueError(
            f"the protocol has {many(len(pairs), f'{kind} pair')}, each of which mteb holds by "
            f"itself; expected at most {MAX_PAIRS:,}: take fewer gallery items "
            "(protocol.max_per_category) or relevance by more columns"
        )


def _write_pictures(
    path: Path, catalog: Catalog, rows: NDArray[np.int64], progress: Callable[[int], None]
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    feature = {"id": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("id", pa.string()), ("image", image)])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": feature}})})
    ids, names = (catalog.table[column].tolist() for column in ("item_id", "image"))
    path.parent.mkdir()
    with parquet.ParquetWriter(path, schema, compression="none") as writer:
        for start in range(0, len(rows), PICTURES_AT_ONCE):
            part = rows[start : start + PICTURES_AT_ONCE].tolist()
            pictures = [{"bytes": _encoded(catalog, names[row]), "path": None} for row in part]
            columns = {"id": [ids[row] for row in part], "image": pictures}
            writer.write_table(pa.table(columns, schema=schema))
            progress(start + len(part))


def _encoded(catalog: Catalog, image: str) -> bytes:
    """Returns a picture as a file that holds the pixels seen here, upright, and nothing else."""
    from PIL import Image

    from visual_search.catalog.images import decode_whole

    loaded = catalog.source.load(image)
    array = decode_whole(loaded) if isinstance(loaded, bytes) else loaded
    if isinstance(loaded, bytes):
        with Image.open(io.BytesIO(loaded)) as opened:
            silent = set(opened.info) <= OF_THE_CODING and not opened.getexif()
            if opened.format in KEPT_AS_THEY_ARE and opened.mode == "RGB" and silent:
                return loaded
    file = io.BytesIO()
    Image.fromarray(array).convert("RGB").save(file, "PNG")
    return file.getvalue()


def _write_pairs(path: Path, pairs: Pairs, queries: Any, gallery: Any) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def ids(names: Any, places: NDArray[np.int64]) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(places), pa.array(names.tolist())).cast(
            pa.string()
        )

    path.parent.mkdir()
    columns = {
        "query-id": ids(queries, pairs.queries),
        "corpus-id": ids(gallery, pairs.gallery),
        "score": pa.array([1] * len(pairs), type=pa.int32()),
    }
    parquet.write_table(pa.table(columns), path)


def _write_lists(path: Path, pairs: Pairs, queries: Any, gallery: Any) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir()
    schema = pa.schema([("query-id", pa.string()), ("corpus-ids", pa.list_(pa.string()))])
    with parquet.ParquetWriter(path, schema) as writer:
        for place, found in _by_query(pairs, len(queries)):
            columns = {"query-id": [queries[place]], "corpus-ids": [gallery[found].tolist()]}
            writer.write_table(pa.table(columns, schema=schema))


def _by_query(pairs: Pairs, num_queries: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    import numpy as np

    bounds = np.searchsorted(pairs.queries, np.arange(num_queries + 1))
    for place in range(num_queries):
        yield place, pairs.gallery[bounds[place] : bounds[place + 1]]
