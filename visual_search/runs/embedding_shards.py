"""A folder of embeddings in shards: what lies in it, writing it bit by bit, reading it back.

It lies on a disk, or on object storage under the same names.

::

    settings.json            written first: what all shards have in common
    items.parquet            the items that are to be embedded; gone when all of them are
    shards/00000.parquet     the items' columns, content_key, embedding
    finished/00000.json      written after its shard: SHA-256, items, refused items, whose settings
    manifest.json            written last: everything, the refused items too

A shard without its line in ``finished`` is written again; a folder without ``manifest.json`` is
unfinished, and `read_shards` refuses it. Who goes on takes a shard of the size and time that its
line has for the one that was written, and hashes it where the time is another; who reads hashes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from visual_search.reading import (
    DamagedFileError,
    FileRecord,
    checksum,
    difference,
    parsed_json,
    record_file,
    sealed,
    unsealed,
)
from visual_search.runs.embedding_listing import LISTING_FILE
from visual_search.runs.embedding_stores import open_store
from visual_search.runs.places import refused_without_places
from visual_search.runs.run import json_text
from visual_search.storage.bucket import ObjectStatus, in_parallel

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from visual_search.catalog.catalog import RefusedItem
    from visual_search.storage.uris import ObjectUri

FORMAT = "visual_search.runs.embedding_shards/1"
SETTINGS_FORMAT = "visual_search.embedding_settings/2"  # and of the lines in `finished`
SETTINGS_FILE, MANIFEST_FILE, LOCK_FILE = "settings.json", "manifest.json", ".lock"
SHARDS, FINISHED = "shards", "finished"
CONTENT_KEY, EMBEDDING = "content_key", "embedding"
_EXPECTED = "what the embed command writes: embed the catalogue anew"
ROW_GROUP_ITEMS = 8192  # 16 MiB of 512 numbers: what a reader that streams holds at least

# Settings that name things for a reader, and do not decide what is in a shard.
NAMES = ("run", "catalog")


@dataclass(frozen=True)
class ShardSettings:
    """What all shards of a folder have in common.

    Attributes:
        run: Experiment and folder name of the run, as ``plus_layer/0123456789``.
        model_hash: SHA-256 (hex) of the network's weights.
        preprocessing_hash: SHA-256 (hex) of the way from picture to network input.
        embedding_hash: SHA-256 (hex) of the way from the network's values to the embedding.
        precision: Of the numbers inside the network, as ``32-true``.
        dim: Embedding width D.
        catalog: The catalogue's name.
        catalog_fingerprint: SHA-256 (hex) of its table.
        columns: Of the item table, in a shard's order, without content key and embedding.
        num_items: Items N of the table; fewer are embedded where pictures are refused.
        shard_size: Items a shard; the last has fewer, and one with refused pictures.
    """

    run: str
    model_hash: str
    preprocessing_hash: str
    embedding_hash: str
    precision: str
    dim: int
    catalog: str
    catalog_fingerprint: str
    columns: tuple[str, ...]
    num_items: int
    shard_size: int

    @property
    def num_shards(self) -> int:
        """Shards of a finished folder."""
        return -(-self.num_items // self.shard_size)

    def num_rows(self, number: int) -> int:
        """Returns how many items of the table a shard is made of."""
        return min(self.shard_size, self.num_items - number * self.shard_size)

    def plain(self) -> dict[str, object]:
        """Returns the settings as JSON holds them."""
        return {**asdict(self), "columns": list(self.columns)}

    def digest(self) -> str:
        """Returns a SHA-256 (hex) of what decides the content of the shards."""
        kept = {name: value for name, value in self.plain().items() if name not in NAMES}
        return checksum(kept)


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard.

    Attributes:
        file: Its path within the folder, ``shards/00000.parquet``.
        first_row: Row of the catalogue's table at which it begins.
        num_items: Its items, those alone that were embedded.
        num_bytes: Its size.
        mtime_ns: When it was written.
        sha256: Of its bytes (hex).
        content_keys: SHA-256 (hex) of its items' content keys.
        refused: Items that are not in it.
        settings: `ShardSettings.digest` of the folder that it belongs to.
    """

    file: str
    first_row: int
    num_items: int
    num_bytes: int
    mtime_ns: int
    sha256: str
    content_keys: str
    refused: list[dict[str, str]]
    settings: str

    @property
    def entry(self) -> ShardEntry:
        """What the manifest has of it."""
        return {
            "file": self.file,
            "first_row": self.first_row,
            "num_items": self.num_items,
            "num_bytes": self.num_bytes,
            "sha256": self.sha256,
        }


class ShardEntry(TypedDict):
    """A shard in the manifest."""

    file: str
    first_row: int
    num_items: int
    num_bytes: int
    sha256: str


class ShardManifest(TypedDict):
    """``manifest.json`` of a finished folder: `ShardSettings`, its shards, and what is left out.

    ``num_items`` are those that were embedded.
    """

    run: str
    model_hash: str
    preprocessing_hash: str
    embedding_hash: str
    precision: str
    dim: int
    catalog: str
    catalog_fingerprint: str
    columns: list[str]
    num_items: int
    shard_size: int
    shards: list[ShardEntry]
    refused: list[dict[str, str]]


class ShardFolder:
    """The folder that is being written.

    Args:
        folder: Its path, or its address on object storage; `claim` makes it.
        settings: What its shards have in common.

    Raises:
        ValueError: The address names no bucket, or holds a password.
    """

    def __init__(self, folder: str | Path | ObjectUri, settings: ShardSettings) -> None:
        self._store = open_store(folder)
        self.folder = self._store.place
        self.settings = settings
        self._digest = settings.digest()

    def claim(self) -> None:
        """Writes the settings, or finds the same ones.

        Raises:
            ValueError: The folder holds shards of other settings, or something else.
        """
        expected = {"format": SETTINGS_FORMAT, **self.settings.plain()}
        try:
            found = self._read_json(SETTINGS_FILE)
        except FileNotFoundError:
            begun = tuple(f".{Path(name).stem}." for name in (SETTINGS_FILE, LISTING_FILE))
            strangers = [
                name
                for name in self._store.names()
                if name not in (LOCK_FILE, LISTING_FILE) and not name.startswith(begun)
            ]
            if strangers:
                raise ValueError(
                    f"{self.folder} holds {strangers[:3]} and no {SETTINGS_FILE}; expected a new "
                    "folder or one with unfinished shards: give another out=DIR"
                ) from None
            self._write_json(SETTINGS_FILE, expected)
            return
        others = [
            f"{name} {_short(found.get(name))} there, {_short(expected[name])} here"
            for name in expected
            if name not in NAMES and found.get(name) != expected[name]
        ]
        if others:
            raise ValueError(
                f"{self.folder} holds shards of other settings ({'; '.join(others)}); expected the "
                "same run, data and shard_size as at its beginning: repeat that command, or give "
                "another out=DIR"
            )

    def sweep(self) -> None:
        """Removes the unfinished files of processes that were killed."""
        for place in ("", SHARDS, FINISHED):
            self._store.sweep(place)

    def finished(
        self, on_progress: Callable[[int, int], None] | None = None
    ) -> dict[int, ShardRecord]:
        """Returns the shards whose file is the one that was written, by number, ascending.

        Args:
            on_progress: Called with (shards read, shards to read).
        """
        files = self._store.listed(SHARDS)  # all at once: on object storage a request takes long
        records = in_parallel(
            lambda number: self._known(number, files.get(_shard_file(number))),
            range(self.settings.num_shards),
            on_progress,
        )
        return {number: found for number, found in enumerate(records) if found is not None}

    def write(
        self,
        number: int,
        table: pd.DataFrame,
        content_keys: Sequence[str],
        embeddings: NDArray[np.float32],
        refused: Sequence[RefusedItem] = (),
    ) -> ShardRecord:
        """Writes a shard, and then that it is finished; several processes may write the same.

        Args:
            number: Of the shard, from 0.
            table: Its rows of the catalogue's table.
            content_keys: Of their pictures.
            embeddings: ``[n, D] float32``.
            refused: Items whose pictures cannot be used; they are not in the table.

        Raises:
            ValueError: The embeddings do not fit the table or the settings, or are not finite.
        """
        import numpy as np

        asked = self.settings
        expected = (len(table), asked.dim)
        if embeddings.shape != expected or not np.isfinite(embeddings).all():
            first = ""
            if embeddings.shape == expected:
                bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
                first = f", not finite of {table['item_id'].iloc[bad[0]]!r}"
            raise ValueError(
                f"the embeddings of shard {number} have shape {embeddings.shape}{first}; expected "
                f"finite numbers of shape {expected}: look at the picture and the network"
            )
        file = _shard_file(number)
        with self._store.writing(file) as temporary:
            _write_parquet(temporary, table[list(asked.columns)], content_keys, embeddings)
            written = record_file(temporary)
        record = ShardRecord(
            file=file,
            first_row=number * asked.shard_size,
            num_items=len(table),
            num_bytes=written.num_bytes,
            mtime_ns=self._store.status(file).mtime_ns,
            sha256=written.sha256,
            content_keys=hashlib.sha256("\n".join(content_keys).encode()).hexdigest(),
            refused=refused_without_places(refused),
            settings=self._digest,
        )
        self._write_json(_record_file(number), asdict(record))
        return record

    def conclude(self, refused: Sequence[RefusedItem]) -> ShardManifest:
        """Writes and gives the manifest, once every shard is finished; removes the listing.

        Args:
            refused: Items that the catalogue's reader left out.

        Raises:
            ValueError: A shard is missing or damaged, or none has an item.
        """
        records = self.finished()
        missing = sorted(set(range(self.settings.num_shards)) - set(records))
        if missing:
            raise ValueError(
                f"{self.folder} lacks {len(missing)} of {self.settings.num_shards} shard(s), the "
                f"first is {missing[0]:05d}; expected all of them: start the command again"
            )
        refusals = refused_without_places(refused)
        refusals += [item for record in records.values() for item in record.refused]
        num_items = sum(record.num_items for record in records.values())
        if not num_items:
            reasons = "".join(
                f"\n  {r['item_id']!r} ({r['image']}): {r['reason']}" for r in refusals[:3]
            )
            raise ValueError(
                f"no item of catalogue {self.settings.catalog!r} is left: all "
                f"{self.settings.num_items} pictures were refused, as:{reasons}\ncheck the column "
                "and the folder that the pictures are read from, and give another out=DIR"
            )
        content = {
            **self.settings.plain(),
            "num_items": num_items,
            "shards": [record.entry for record in records.values()],
            "refused": refusals,
        }
        self._write_json(MANIFEST_FILE, sealed(FORMAT, content))
        self.sweep()  # what other nodes left that were killed
        self._store.remove(LISTING_FILE)
        return read_shard_manifest(self.folder)

    def record(self, number: int) -> ShardRecord | None:
        """Returns what was written of a shard whose file is there.

        None where nothing was, by other settings, or where the file is not that one any more.
        """
        try:
            return self._known(number, self._store.status(_shard_file(number)))
        except OSError:
            return None

    def _known(self, number: int, status: ObjectStatus | None) -> ShardRecord | None:
        if status is None:
            return None
        try:
            record = ShardRecord(**self._read_json(_record_file(number)))
        except (OSError, ValueError, TypeError):
            return None
        found = (record.settings, record.file, record.num_bytes)  # a record cannot point elsewhere
        if found != (self._digest, _shard_file(number), status.num_bytes):
            return None
        if record.mtime_ns == status.mtime_ns:
            return record
        # copied or moved, most likely: read once, and then known by its new time
        with self._store.reading(record.file) as path:
            if difference(path, FileRecord(record.sha256, record.num_bytes)):
                return None
        record = replace(record, mtime_ns=status.mtime_ns)
        self._write_json(_record_file(number), asdict(record))
        return record

    def _read_json(self, name: str) -> Any:
        return parsed_json(self._store.text(name, _EXPECTED), str(self.folder / name), _EXPECTED)

    def _write_json(self, name: str, content: Mapping[str, object]) -> None:
        with self._store.writing(name) as temporary:
            temporary.write_text(json_text(content), encoding="utf-8")


def _shard_file(number: int) -> str:
    return f"{SHARDS}/{number:05d}.parquet"


def _record_file(number: int) -> str:
    return f"{FINISHED}/{number:05d}.json"


def read_shard_manifest(folder: str | Path | ObjectUri) -> ShardManifest:
    """Returns the manifest of a finished folder, on a disk or on object storage.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no such manifest, or was changed after it was written.
        StorageError: Object storage does not answer, or refuses.
    """
    store = open_store(folder)
    path = str(store.place / MANIFEST_FILE)
    try:
        text = store.text(MANIFEST_FILE, _EXPECTED)
    except FileNotFoundError as error:
        unfinished = SETTINGS_FILE in store.names()
        hint = "it is unfinished: start its command again" if unfinished else "check the path"
        raise FileNotFoundError(
            f"no manifest at {path}; expected a folder of shards; {hint}"
        ) from error
    try:
        content: ShardManifest = unsealed(FORMAT, parsed_json(text, path, _EXPECTED))
        names = [shard["file"] for shard in content["shards"]]
        if names != [_shard_file(number) for number in range(len(names))]:
            raise ValueError(f"it names the shards {names[:3]}")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(path, str(error), _EXPECTED) from error
    return content


def read_shards(
    folder: str | Path | ObjectUri, on_progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[pd.DataFrame, NDArray[np.float32]]]:
    """Yields (items, embeddings) shard after shard, in the catalogue's order.

    Args:
        folder: That the embed command finished; of one on object storage, as
            ``s3://bucket/embedded``, a shard is copied to this machine while it is read.
        on_progress: Called with (items read, N).

    Yields:
        The items' table (all text: ``item_id``, ``image``, ``category``, ``group``, ``split``,
        attributes, ``content_key``) and their embeddings, ``[n, D] float32``.

    Raises:
        FileNotFoundError: The folder is not finished, or a shard is missing.
        ValueError: The manifest or a shard was changed after it was written.
        StorageError: Object storage does not answer, or refuses.
    """
    manifest, store = read_shard_manifest(folder), open_store(folder)
    done = 0
    for shard in manifest["shards"]:
        path = store.place / shard["file"]
        found = None
        try:
            with store.reading(shard["file"]) as file:
                if difference(file, FileRecord(shard["sha256"], shard["num_bytes"])):
                    raise ValueError(
                        f"{path} is not the file that was written (SHA-256 "
                        f"{shard['sha256'][:12]}... expected); it was damaged or changed: start "
                        "the command that wrote the folder again, it writes the shard anew"
                    )
                if shard["num_items"]:
                    found = _read_parquet(file, manifest["dim"])
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path} is missing; expected {shard['num_items']} items there: start the command "
                "that wrote the folder again, it writes what is missing"
            ) from error
        if found is not None:
            yield found
        done += shard["num_items"]
        if on_progress is not None:
            on_progress(done, manifest["num_items"])


def _write_parquet(
    path: Path,
    table: pd.DataFrame,
    content_keys: Sequence[str],
    embeddings: NDArray[np.float32],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(table[name].tolist(), pa.string()) for name in table.columns}
    columns[CONTENT_KEY] = pa.array(list(content_keys), pa.string())
    texts = list(columns)
    columns[EMBEDDING] = pa.FixedSizeListArray.from_arrays(
        pa.array(embeddings.reshape(-1), pa.float32()), embeddings.shape[1]
    )
    pq.write_table(
        pa.table(columns),
        path,
        compression="zstd",
        use_dictionary=texts,  # of embeddings, hardly any number comes twice
        row_group_size=ROW_GROUP_ITEMS,
    )


def _read_parquet(path: Path, dim: int) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    import numpy as np
    import pandas as pd

    from visual_search.catalog.readers.parquet_columns import (
        TextBudget,
        open_parquet,
        read_columns,
        read_numbers,
    )

    with open_parquet(path) as (opened, (num_bytes, _)):
        names = [name for name in opened.schema_arrow.names if name != EMBEDDING]
        table = pd.DataFrame(read_columns(opened, names, str(path), TextBudget(str(path))))
        embeddings = read_numbers(opened, [EMBEDDING], str(path), num_bytes)  # [n, D]
    if embeddings.shape != (len(table), dim):
        raise ValueError(
            f"{path} holds embeddings of shape {embeddings.shape}; expected {(len(table), dim)}: "
            "embed the catalogue anew"
        )
    return table.astype(object), np.ascontiguousarray(embeddings)


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 else text
