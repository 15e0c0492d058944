"""Several processes and threads: gathering arrays from all of them, agreeing, being as many."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray

# How long processes wait for each other. Whatever only the first one does (reading a catalogue,
# fetching its pictures, floors, a page) is no reason to give up, and torch would after half an hour
# (gloo) or ten minutes (NCCL). A process that ends is noticed at once by its closed connections or
# by what launched it, not by this.
WAIT = timedelta(days=7)
_Value = TypeVar("_Value")
_Scalar = TypeVar("_Scalar", bound=np.generic)
_NUM_THREADS = torch.get_num_threads()  # as the environment and the cores have it


def restore_num_threads() -> None:
    """Returns torch as many threads as it started with.

    UMAP (through numba) changes the number for the whole process, and another number of threads
    sums in another order: a run that is gone on with would differ in the last bit.
    """
    torch.set_num_threads(_NUM_THREADS)


def _alone() -> bool:
    return not (torch.distributed.is_available() and torch.distributed.is_initialized())


def gather(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Returns arrays ``[n_rank, ...]`` of all processes one after the other, on every process."""
    if _alone():
        return array
    parts = [array] * torch.distributed.get_world_size()  # to be overwritten
    torch.distributed.all_gather_object(parts, array)
    return np.concatenate(parts)


def any_process(flag: bool) -> bool:
    """Returns True on every process if the flag is set on one of them."""
    if _alone():
        return flag
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor([int(flag)], device=device)
    torch.distributed.all_reduce(total)
    return bool(total.item())


def from_first(value: _Value) -> _Value:
    """Returns on every process what the first one has; plain values, as they are pickled."""
    if _alone():
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]
