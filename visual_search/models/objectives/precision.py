"""Where an objective leaves the step's bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> torch.autocast:
    """Returns a context in which the tensor's device computes in the precision of the inputs.

    Autocast turns even float32 inputs of a matrix product into bfloat16, which has 8 bits: cosines
    of 0.996 and 1.0 are then one number. Inputs need ``.float()`` as well.

    Example:
        >>> ones = torch.ones(1, 1)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     outer = ones @ ones
        ...     with without_autocast(ones):
        ...         inner = ones @ ones
        >>> outer.dtype, inner.dtype
        (torch.bfloat16, torch.float32)
    """
    return torch.autocast(device_type=tensor.device.type, enabled=False)
