"""Files of a run as they are read: whole, as they were written, or refused by name; what they hold.

JSON has no NaN: a number that may be missing is None in ``summary.json``, and NaN once
`retrieval.report_files.load_report` read it. A key that an earlier version did not write is
missing: ask with ``get`` where that may be.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from visual_search.wording import Number, as_float

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

# Of a file that is read whole. A summary that lists 100,000 refused items has 20 MB.
MAX_TEXT_BYTES = 128 * 2**20
SAVED = "what a run saves beside its numbers: restore the file, or measure the run again"


class DamagedFileError(ValueError):
    """A file is not what was written there; the message names it and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str, expected: str) -> None:
        super().__init__(f"{path} cannot be read: {reason}; expected {expected}")


def read_text(path: str | os.PathLike[str], expected: str) -> str:
    """Returns a file's text.

    Args:
        path: Of the file.
        expected: What should be there and what to do where it is not, for the message.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It is no file, too large, not UTF-8, or cannot be read.
    """
    file = Path(path)
    try:
        check_readable(file, expected)
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"no file at {file}; expected {expected}") from error
    except OSError as error:
        raise DamagedFileError(file, str(error.strerror), expected) from error
    except UnicodeDecodeError as error:
        raise DamagedFileError(file, "it is no text (not UTF-8)", expected) from error


def check_is_file(path: Path, expected: str) -> None:
    """Refuses a pipe, at which a reader would wait for ever, and a folder.

    Raises:
        DamagedFileError: It is no file.
    """
    if path.exists() and not path.is_file():
        raise DamagedFileError(path, "it is no file", expected)


def check_readable(path: Path, expected: str) -> None:
    """Refuses what no run writes as text: no file, or one that memory should not hold.

    Args:
        path: Of the file.
        expected: As of `read_text`.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It is no file, such as a pipe, or too large.
    """
    check_is_file(path, expected)
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise DamagedFileError(
            path, f"it has {size:,} bytes, more than {MAX_TEXT_BYTES:,}", expected
        )


def read_table(path: str | os.PathLike[str], expected: str, **options: Any) -> pd.DataFrame:
    """Returns a table that a run left, as pandas reads it.

    Args:
        path: Of a CSV or a Parquet file.
        expected: As of `read_text`.
        **options: Of `pandas.read_csv` or `pandas.read_parquet`.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It is no file, too large, or no table.
    """
    import pandas as pd

    table: pd.DataFrame
    file = Path(path)
    try:
        if file.suffix == ".parquet":
            check_is_file(file, expected)
            table = pd.read_parquet(file, **options)
        else:
            check_readable(file, expected)
            table = pd.read_csv(file, encoding="utf-8", **options)
    except (FileNotFoundError, DamagedFileError):
        raise
    except Exception as error:  # Arrow has kinds of its own, of no common base
        raise DamagedFileError(path, str(error).strip(), expected) from error
    return table


def read_array(path: str | os.PathLike[str], expected: str) -> NDArray[Any]:
    """Returns an array that a run left, mapped and not loaded; one of Python objects is refused.

    Args:
        path: Of an ``.npy`` file.
        expected: As of `read_text`.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It is no file, or no whole array.
    """
    import numpy as np

    check_is_file(Path(path), expected)
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a header of brackets, one that announces 10^12 numbers, ...
        raise DamagedFileError(path, str(error).strip(), expected) from error
    return array


def read_json(path: str | os.PathLike[str], expected: str) -> Any:
    """Returns the object in a JSON file, a dict; who reads it declares of what.

    Args:
        path: Of the file.
        expected: As of `read_text`.

    Raises:
        FileNotFoundError: There is nothing.
        DamagedFileError: It holds something else.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "status.json"
        >>> _ = path.write_text('["no", "object"]')
        >>> try:
        ...     read_json(path, "a status")
        ... except DamagedFileError as error:
        ...     print(str(error).removeprefix(f"{path} cannot be read: "))
        it holds a JSON list, no object; expected a status
    """
    return parsed_json(read_text(path, expected), path, expected)


def parsed_json(text: str, path: str | os.PathLike[str], expected: str) -> Any:
    """Returns the object in a JSON text, a dict; who reads it declares of what.

    Args:
        text: The whole of a file.
        path: Of the file, for the message.
        expected: As of `read_text`.

    Raises:
        DamagedFileError: It holds something else.
    """
    if not text.strip():
        raise DamagedFileError(path, "it is empty", expected)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(path, f"it is no JSON ({error})", expected) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DamagedFileError(path, f"it holds a JSON {kind}, no object", expected)
    return content


@dataclass(frozen=True)
class FileRecord:
    """A file's SHA-256 (hex) and its size in bytes."""

    sha256: str
    num_bytes: int


def record_file(path: Path) -> FileRecord:
    """Reads a file once and gives its record.

    Raises:
        FileNotFoundError: There is none.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> _ = path.write_bytes(b"shoe")
        >>> record_file(path).num_bytes
        4
    """
    with path.open("rb") as file:
        return FileRecord(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())


def difference(path: Path, expected: FileRecord, *, hashed: bool = True) -> str:
    """Says how a file differs from its record; empty where it is the one that was written.

    Args:
        path: Of the file.
        expected: What was written.
        hashed: Compare the content too, not the size alone.

    Raises:
        FileNotFoundError: There is none.
    """
    num_bytes = path.stat().st_size  # the size first: hashing what is too large takes minutes
    if num_bytes != expected.num_bytes:
        return f"has {num_bytes:,} bytes, expected {expected.num_bytes:,}; it was cut or replaced"
    found = record_file(path) if hashed else expected
    if found != expected:
        return (
            f"has SHA-256 {found.sha256[:12]}..., expected {expected.sha256[:12]}...; it was "
            "damaged or changed"
        )
    return ""


def checksum(content: Mapping[str, object]) -> str:
    """Returns the SHA-256 (hex) of plain JSON, whatever the order of its keys.

    Example:
        >>> checksum({"a": 1, "b": 2}) == checksum({"b": 2, "a": 1})
        True
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(kind: str, content: Mapping[str, object]) -> dict[str, object]:
    """Returns a manifest as it is written: its format first, a checksum over both last.

    Args:
        kind: The format's name and version, as ``visual_search.bundle/1``.
        content: Plain JSON.

    Example:
        >>> unsealed("note/1", sealed("note/1", {"text": "shoe"}))
        {'text': 'shoe'}
    """
    whole = {"format": kind, **content}
    return whole | {"sha256": checksum(whole)}


def unsealed(kind: str, manifest: Mapping[str, object]) -> Any:
    """Returns what was `sealed`, a dict; who reads it declares of what.

    Raises:
        ValueError: It is of another format or a newer version, or was changed after it was written.
    """
    content = dict(manifest)
    written, found = content.pop("sha256", None), content.pop("format", None)
    if found != kind:
        name, _, version = str(found).rpartition("/")
        own_name, _, own_version = kind.rpartition("/")
        if name == own_name and version.isdecimal() and int(version) > int(own_version):
            raise ValueError(
                f"its format is {found!r}, newer than {kind!r}, the newest that is read here; "
                "update visual-search"
            )
        raise ValueError(f"its format is {str(found)[:100]!r}, not {kind!r}")
    if written != checksum({"format": kind, **content}):
        raise ValueError("its content does not fit its own checksum: it was changed or cut")
    return content


class Headline(TypedDict):
    """The metric that a run is known by: column of ``per_query``, name of its mean, in print."""

    column: str
    mean: str
    title: str


class Ends(TypedDict, total=False):
    """A mean with its interval: the fields of `statistics.Interval`."""

    mean: Number
    low: Number
    high: Number
    num_queries: int
    num_groups: int
    num_left_out: int
    confidence: float
    method: str
    effective_groups: Number
    rough: bool


class Rules(TypedDict):
    """What decides a number once the sides are chosen: see `Protocol.rules`."""

    name: str
    k: int
    relevance: list[str]
    hierarchy: list[str]
    report_by: list[str]
    restrict_to: list[str]
    exclude: str


class Identity(TypedDict, total=False):
    """What two measurements must share before their numbers may be compared: see `identity`.

    `comparability.identity_of` adds ``k`` of the summary.
    """

    data: str
    gallery: str
    queries: str
    protocol: str
    protocol_name: str
    protocol_title: str
    protocol_settings: Mapping[str, object]
    rules: Rules
    num_gallery: int
    num_queries: int
    k: int


class SideLeaks(TypedDict):
    """What two sides share: pairs by kind, queries concerned, the first pairs."""

    num_pairs: dict[str, int]
    num_queries: int
    pairs: list[list[str]]


class FoundLeaks(TypedDict, total=False):
    """What was found on both sides, and what the protocol made of it."""

    on_leak: str
    num_dropped: int
    between_sides: SideLeaks
    with_training: SideLeaks


class NearCounts(TypedDict):
    """How many pairs only look the same."""

    definition: str
    num_pairs: int
    num_queries: int
    num_by_hash_alone: int
    num_by_embedding_alone: int


class IndexFacts(TypedDict, total=False):
    """The gallery's index: its size, and what searched."""

    bytes: int
    bytes_per_item: float
    device: str
    device_reason: str
    gpu_failed: bool


class MeasuredFloor(TypedDict, total=False):
    """An embedding that learns nothing, on the same queries: the columns of `floor_differences`.

    Its means by name (``micro_map_at_5``) stand beside them: see `number_in`.
    """

    name: str
    title: str
    dim: int
    definition: str
    statistic: Literal["micro", "macro"]
    micro: Number
    micro_low: Number
    micro_high: Number
    macro: Number
    macro_low: Number
    macro_high: Number
    difference: Number
    difference_low: Number
    difference_high: Number
    p_value: Number
    p_holm: Number


class DeviceFacts(TypedDict, total=False):
    """What computed a number, and how exactly."""

    device: str
    device_name: str
    num_devices: int
    precision: str
    num_threads: int
    bf16: str
    card: dict[str, object]


class SeedSpread(TypedDict):
    """How many runs a mean over seeds is of, and the headline's standard deviation over them."""

    num_runs: int
    micro: Number
    macro: Number


class OverProducts(TypedDict):
    """The headline with one answer a product, where products have several pictures.

    Where floors were measured, ``floors`` has a row each, and ``standing`` compares the run.
    """

    title: str
    mean: float
    low: float
    high: float
    num_products_scored: int
    num_products_asking: int
    num_products_gallery: int
    definition: str
    num_groups: NotRequired[int]
    effective_groups: NotRequired[float]
    rough: NotRequired[bool]
    floors: NotRequired[list[MeasuredFloor]]
    standing: NotRequired[str]


class Summary(DeviceFacts, total=False):
    """A measurement: a report's own numbers, then what a run adds.

    The means by name (``micro_map_at_5``, ``macro_map_at_5``) stand beside them: see `number_in`.
    """

    k: int
    num_gallery: int
    num_queries: int
    num_queries_scored: int
    num_left_out: int
    num_categories: int
    num_categories_scored: int
    headline: Headline
    definitions: dict[str, str]
    rules: dict[str, str]
    all_relevant: bool
    intervals: dict[str, Ends]
    seeds: SeedSpread

    kind: str
    val_loss: Number
    test_loss: Number
    loss_name: str
    embedding_dim: int
    num_parameters: int | None
    epochs: int | None
    num_training: int | None
    weights: str | None
    computed_before_on: list[str] | None
    num_queries_trained_on: int | None
    index: IndexFacts
    query_split: str
    embedding_ms_per_item: Number
    refused: list[dict[str, str]]
    choices: list[object]
    identity: Identity
    catalog_fingerprint: str
    leaks: FoundLeaks
    floors: list[MeasuredFloor]
    standing: str
    near_duplicates: NearCounts
    products: OverProducts


def number_in(measured: Mapping[str, Any], name: str) -> float:
    """Returns a number of a `Summary` or a `MeasuredFloor`, NaN where it has none.

    Args:
        measured: Either.
        name: A key that is put together, as ``micro_map_at_5`` of statistic, metric and k; of
            others ask the dict itself, where the type checker knows them.

    Example:
        >>> number_in({"micro_map_at_5": 0.5}, "micro_map_at_5"), number_in({}, "macro_map_at_5")
        (0.5, nan)
    """
    return as_float(measured.get(name))


def ends_of(measured: Mapping[str, Any], statistic: str) -> Ends:
    """Returns the interval of a headline's mean; NaN where a `Summary` or `MeasuredFloor` has none.

    Args:
        measured: Either; a floor holds its ends as ``micro_low``, and not who carries them.
        statistic: ``micro`` or ``macro``.

    Example:
        >>> ends_of({"intervals": {"micro": {"low": 0.4, "high": 0.6}}}, "micro")
        {'low': 0.4, 'high': 0.6}
        >>> ends_of({"micro_low": 0.4, "micro_high": 0.6}, "micro"), ends_of({}, "micro")
        ({'low': 0.4, 'high': 0.6}, {'low': nan, 'high': nan})
    """
    intervals: dict[str, Ends] = measured.get("intervals") or {}
    held = intervals.get(statistic) or {}
    low, high = (number_in(measured, f"{statistic}_{end}") for end in ("low", "high"))
    return {**held, "low": as_float(held.get("low", low)), "high": as_float(held.get("high", high))}
