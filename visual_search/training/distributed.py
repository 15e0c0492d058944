"""Several processes and threads: gathering arrays from all of them, agreeing, being as many."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray

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
