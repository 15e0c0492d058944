"""Several processes: gathering arrays from all of them, and agreeing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray


def _alone() -> bool:
    return not (torch.distributed.is_available() and torch.distributed.is_initialized())


def gather(array: NDArray[Any]) -> NDArray[Any]:
    """Gives the arrays ``[n_rank, ...]`` of all processes one after the other, on every process."""
    if _alone():
        return array
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, array)
    return np.concatenate(parts)


def any_process(flag: bool) -> bool:
    """Gives True on every process if the flag is set on one of them."""
    if _alone():
        return flag
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor([int(flag)], device=device)
    torch.distributed.all_reduce(total)
    return bool(total.item())
