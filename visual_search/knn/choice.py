"""Which kind of index suits so many items in so much memory."""

from __future__ import annotations

import math
from pathlib import Path

from visual_search.wording import file_size, many

# An exact search reads all embeddings for each query: at 2^26 numbers (131,072 items of 512) one
# core takes 20 ms a query, measured as 7 to 10 ms among 50,000 items of 512. Beyond that an
# approximate search is worth its build.
FLAT_MAX_VALUES = 2**26
MIN_PRODUCT_ROWS = 1_000  # a product quantiser learns 256 centres a part
SHARE_OF_FREE = 0.5  # of the free memory; the rest caches the store and serves others
UNKNOWN_FREE = 2**31  # where the system does not say how much is free


def list_count(num_rows: int) -> int:
    """Returns number of IVF lists for so many items: 4 sqrt(N), with 39 items a list to train."""
    return max(1, min(round(4 * math.sqrt(num_rows)), num_rows // 39))


def part_count(dim: int) -> int:
    """Returns the parts of a product quantiser: the smallest divisor of D that is at least D / 8.

    Example:
        >>> part_count(512), part_count(100), part_count(7)
        (64, 20, 1)
    """
    return next(parts for parts in range(max(1, math.ceil(dim / 8)), dim + 1) if dim % parts == 0)


def ivf_bytes(num_rows: int, dim: int) -> int:
    """Returns the memory of an IVF index with 8 bits a number: codes, ids and centres."""
    return num_rows * (dim + 8) + list_count(num_rows) * 4 * dim


def ivfpq_bytes(num_rows: int, dim: int) -> int:
    """Returns the memory of an IVF index with product codes: codes, ids and centres."""
    return num_rows * (part_count(dim) + 8) + (list_count(num_rows) + 256) * 4 * dim


def choose_kind(num_rows: int, dim: int, max_bytes: int | None = None) -> tuple[str, str]:
    """Returns ``flat``, ``ivf`` or ``ivfpq``, and the reason in one sentence.

    ``hnsw`` is not chosen: among 30,000 clustered embeddings of 256 it answered a query in 0.10 ms
    where ``ivf`` took 0.09 ms, among hardly clustered ones in 1.2 ms against 0.6 ms, and it was
    built in 22 and 47 s against 2 and 7 s, by one core, at the same recall.

    Args:
        num_rows: Items, N.
        dim: Embedding width D.
        max_bytes: Memory for the index; None is half of what is free.

    Example:
        >>> choose_kind(20_000, 512, max_bytes=2**30)[0]
        'flat'
        >>> choose_kind(1_000_000, 512, max_bytes=2**30)[0]
        'ivf'
        >>> choose_kind(1_000_000, 512, max_bytes=2**28)[0]
        'ivfpq'
    """
    budget = int(free_bytes() * SHARE_OF_FREE) if max_bytes is None else max_bytes
    size = f"{many(num_rows, 'item')} of {many(dim, 'number')}"
    within = f"within {file_size(budget)} of memory"
    exact = 4 * num_rows * dim
    if num_rows * dim <= FLAT_MAX_VALUES and exact <= budget:
        return "flat", f"{size} ({file_size(exact)}) are few enough to search exactly {within}"
    if num_rows < MIN_PRODUCT_ROWS:
        return "flat", f"{size} ({file_size(exact)}) are too few for anything but an exact search"
    rough = ivf_bytes(num_rows, dim)
    why = (
        "are too many to search exactly" if exact <= budget else f"({file_size(exact)}) do not fit"
    )
    if rough <= budget:
        return "ivf", f"{size} {why} {within}; lists with 8 bits a number take {file_size(rough)}"
    product = ivfpq_bytes(num_rows, dim)
    fits = "" if product <= budget else ", which is still more than there is"
    return "ivfpq", (
        f"{size} need {file_size(rough)} as lists with 8 bits a number and do not fit {within}; "
        f"product codes take {file_size(product)}{fits}"
    )


def free_bytes() -> int:
    """Returns the memory that this process may still take, by Linux's own account.

    It is the smaller of what the machine has available and what the control group leaves; 2 GiB
    where neither is known.
    """
    found = []
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and used.isdigit():
        found.append(max(0, int(limit) - int(used)))
    return min(found, default=UNKNOWN_FREE)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
