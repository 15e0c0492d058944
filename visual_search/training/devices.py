"""Where a run computes and how exactly: found once from what was asked, refused before the work.

Nothing here starts a device; torch is loaded only where the answer hangs on the machine, so that a
command that merely prints a finished run stays quick.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from visual_search.launcher import Launch, launch

Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
Devices = int | str | list[int]
Nodes = int | Literal["auto"]
Strategy = Literal[
    "auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"
]
ResolvedPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]
Precision = Literal["auto"] | ResolvedPrecision
Kind = Literal["cpu", "cuda", "mps"]

# How CUDA, cuDNN, cuBLAS, Metal and the C library say it.
_OUT_OF_MEMORY = re.compile(
    "out of memory|ALLOC_FAILED|can't allocate memory|not enough memory", re.IGNORECASE
)


@dataclass(frozen=True)
class Hardware:
    """What a trainer takes.

    Attributes:
        kind: Of every device.
        devices: How many processes on the CPU of a node, else the numbers of its cards.
        num_nodes: Machines, each with as many devices.
        strategy: How several processes are joined; ``auto`` for one.
        precision: Of the numbers inside the network.
    """

    kind: Kind
    devices: int | list[int]
    num_nodes: int
    strategy: str
    precision: ResolvedPrecision


def find_hardware(
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    strategy: Strategy = "auto",
    precision: Precision = "auto",
    by_channel: bool = False,
    num_nodes: Nodes = "auto",
) -> Hardware:
    """Returns what was asked for in terms of this machine.

    Args:
        accelerator: See `Accelerator`.
        devices: How many a node, or which; ``auto`` as many as a launcher started.
        strategy: How several are joined.
        precision: ``auto`` takes what computes quickest, see `_find_precision`.
        by_channel: Whether the network has convolutions of every channel by itself.
        num_nodes: How many machines; ``auto`` as the launcher has them.

    Raises:
        ValueError: This machine does not have it, or cannot compute so; processes are to be
            joined in a way that would lose what they measured; or a launcher started others.
    """
    kind = find_kind(accelerator)
    found = _find_devices(devices, kind)
    nodes = find_num_nodes(num_nodes)
    num_devices = found if isinstance(found, int) else len(found)
    if (launched := launch()) is not None:
        _check_launched(launched, num_devices, nodes)
    return Hardware(
        kind,
        found,
        nodes,
        _find_strategy(strategy, num_devices * nodes),
        _find_precision(precision, kind, found, by_channel),
    )


def check_hardware(
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    strategy: Strategy = "auto",
    precision: Precision = "auto",
    num_nodes: Nodes = "auto",
) -> None:
    """Refuses what this machine does not have, before anything is read or prepared.

    Raises:
        ValueError: See `find_hardware`.
    """
    if (accelerator, devices, precision) == ("auto", 1, "auto"):
        accelerator = "cpu"  # whatever there is will do: no need to look, nor to load torch
    exactly: Precision = "32-true" if precision == "auto" else precision
    find_hardware(accelerator, devices, strategy, exactly, num_nodes=num_nodes)


def find_num_nodes(num_nodes: Nodes = "auto") -> int:
    """Returns on how many machines is trained; ``auto`` as the launcher has them, else one.

    Raises:
        ValueError: It is no whole number of 1 or more.
    """
    if num_nodes == "auto":
        launched = launch()
        return launched.num_nodes if launched is not None else 1
    if not str(num_nodes).isdecimal() or int(num_nodes) < 1:
        raise ValueError(
            f"got trainer.num_nodes={num_nodes}, expected a number of machines, 1 or more, or auto "
            "for as many as the launcher has; set trainer.num_nodes=auto"
        )
    return int(num_nodes)


def _check_launched(launched: Launch, num_devices: int, num_nodes: int) -> None:
    """Refuses other processes than those that a launcher started.

    Raises:
        ValueError: Names both numbers.
    """
    if (num_devices, num_nodes) != (launched.per_node, launched.num_nodes):
        raise ValueError(
            f"got trainer.devices for {num_devices} and trainer.num_nodes for {num_nodes}, but "
            f"{launched.by} started {launched.per_node} process(es) on each of "
            f"{launched.num_nodes} node(s); expected the same; set trainer.devices=auto "
            "trainer.num_nodes=auto, or trainer=ddp, which has both"
        )


def find_kind(accelerator: Accelerator) -> Kind:
    """Returns the kind of device that is asked for; ``auto`` takes a GPU where there is one.

    Raises:
        ValueError: It is none of the names, or there is no such device here.
    """
    if accelerator not in get_args(Accelerator):
        raise ValueError(
            f"got trainer.accelerator={accelerator!r}, expected one of "
            f"{', '.join(get_args(Accelerator))}; set trainer.accelerator=auto"
        )
    if accelerator == "cpu":
        return "cpu"
    import torch

    has: dict[Kind, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    wanted: tuple[Kind, ...] = ("cuda", "mps")
    if accelerator in ("cuda", "mps"):
        wanted = (accelerator,)
    for kind in wanted:
        if has[kind]:
            return kind
    if accelerator == "auto":
        return "cpu"
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    names = {"cuda": "an NVIDIA GPU", "mps": "an Apple GPU", "gpu": "a GPU"}
    raise ValueError(
        f"got trainer.accelerator={accelerator}, but torch {torch.__version__} ({built}) sees no "
        f"such device here; expected {names[accelerator]} and a driver that fits; set "
        "trainer.accelerator=auto or cpu to go on without, or mend the driver (nvidia-smi shows "
        "what it sees)"
    )


def _find_devices(devices: Devices, kind: Kind) -> int | list[int]:
    """Returns how many processes on the CPU, or the numbers of the cards, of this node.

    >>> [_find_devices(devices, "cpu") for devices in (1, "2", "auto")]
    [1, 2, 1]
    """
    text = str(devices).strip()
    listed = isinstance(devices, list) or "," in text
    launched = launch() if text == "auto" else None
    expected = "a number of processes, 1 or more"
    if kind == "cpu":
        if not listed and text == "auto":
            return launched.per_node if launched is not None else 1
        if not listed and text.isdecimal() and int(text) > 0:
            return int(text)
    else:
        there = _num_cards(kind)
        expected = f"how many of the {there} GPU(s) here, -1 for all, or their numbers from 0"
        parts = devices if isinstance(devices, list) else text.rstrip(",").split(",")
        numbers = [int(part) if str(part).strip().isdecimal() else -1 for part in parts]
        if listed and numbers and len(set(numbers)) == len(numbers):
            if all(0 <= number < there for number in numbers):
                return numbers
        elif launched is not None and launched.per_node <= there:
            return list(range(launched.per_node))
        elif not listed and launched is None and text in ("auto", "-1"):
            return list(range(there))
        elif not listed and 0 < numbers[0] <= there:
            return list(range(numbers[0]))
    raise ValueError(
        f"got trainer.devices={devices} on {kind}, expected {expected}; set trainer.devices=1"
    )


def _num_cards(kind: Kind) -> int:
    import torch

    return torch.cuda.device_count() if kind == "cuda" else 1


def _find_strategy(strategy: Strategy, num_devices: int) -> str:
    """Returns Lightning's name of how processes are joined.

    An objective may leave parts without gradients, as SimCLR an autoencoder's decoder: DDP then has
    to look for them, or dies in the second step.

    >>> _find_strategy("auto", 1), _find_strategy("auto", 2)
    ('auto', 'ddp_find_unused_parameters_true')
    """
    if strategy not in get_args(Strategy):
        why = ""
        if str(strategy).lower().startswith("ddp_"):
            why = ", whose processes would end with what they measured"
        raise ValueError(
            f"got trainer.strategy={strategy}{why}; expected one of "
            f"{', '.join(get_args(Strategy))}; set trainer.strategy=auto, which starts a process "
            "for each of trainer.devices"
        )
    if strategy == "ddp" or (strategy == "auto" and num_devices > 1):
        return "ddp_find_unused_parameters_true"
    return strategy


def _find_precision(
    precision: Precision, kind: Kind, devices: int | list[int], by_channel: bool
) -> ResolvedPrecision:
    """Returns the precision to use where ``auto`` is asked for, and refuses what is not there.

    bf16 autocast trains ``plus_layer`` 2.6 times as fast as float32 on a CPU that has bf16
    instructions (AMX or AVX-512 BF16); without them it is slower, so float32 stays. So it does
    where channels are convolved by themselves and there is no AMX: EfficientNet-Lite0 trained 1.6
    (128 px) and 2.3 times (96 px) as fast in float32 on an AMD EPYC with AVX-512 BF16.
    """
    cards = [] if isinstance(devices, int) else devices
    if precision == "auto":
        if kind == "cuda":
            return "bf16-mixed" if _cards_have_bf16(cards) else "16-mixed"
        quick = cpu_has_amx() if by_channel else cpu_has_bf16()
        return "bf16-mixed" if kind == "cpu" and quick else "32-true"
    if precision not in get_args(ResolvedPrecision):
        raise ValueError(
            f"got trainer.precision={precision}, expected auto or one of "
            f"{', '.join(get_args(ResolvedPrecision))}; set trainer.precision=auto"
        )
    reason = _lacks(precision, kind, cards)
    if reason:
        raise ValueError(
            f"got trainer.precision={precision}, but {reason}; expected what it can compute in; "
            "set trainer.precision=auto, or 32-true"
        )
    return precision


def usable_precision(
    own: ResolvedPrecision, accelerator: Accelerator, devices: Devices = 1
) -> tuple[ResolvedPrecision, str]:
    """Returns a run's own precision, or float32 where this machine cannot compute in it.

    Returns:
        The precision, and why it is another one; empty where it is the run's own.
    """
    kind = find_kind(accelerator)
    found = _find_devices(devices, kind)
    reason = _lacks(own, kind, [] if isinstance(found, int) else found)
    return ("32-true", reason) if reason else (own, "")


def _lacks(precision: ResolvedPrecision, kind: Kind, cards: list[int]) -> str:
    """Says why a device does not compute in a precision; empty where it does."""
    if precision == "16-mixed" and kind == "cpu":
        return "the CPU has no autocast in float16 (Lightning would take bf16 without a word)"
    if precision == "bf16-mixed" and kind == "cuda" and not _cards_have_bf16(cards):
        import torch

        names = ", ".join(sorted({torch.cuda.get_device_name(card) for card in cards}))
        return f"{names} has no bf16 (CUDA cards have it from compute capability 8.0 on)"
    return ""


def _cards_have_bf16(cards: list[int]) -> bool:
    import torch

    if torch.version.hip:
        return True
    return all(torch.cuda.get_device_capability(card) >= (8, 0) for card in cards)


class DeviceMemoryError(RuntimeError):
    """A device's memory did not suffice; the message names the batch and what to set."""


@contextlib.contextmanager
def memory_told(batch_size: int, device: object, *, training: bool = False) -> Iterator[None]:
    """Tells of too little memory with the batch that needed it.

    Args:
        batch_size: Pictures a batch, as ``loader.batch_size``.
        device: Where it is computed.
        training: Whether steps can be put together of smaller batches.

    Raises:
        DeviceMemoryError: The memory did not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if not (isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text)):
            raise
        half = max(1, batch_size // 2)
        steps = " and trainer.accumulate_grad_batches=2 for as many pictures a step" * training
        raise DeviceMemoryError(
            f"the memory of {device} did not suffice for batches of {batch_size} pictures "
            f"({' '.join(text.split())[:200]}); expected room for them; set "
            f"loader.batch_size={half}{steps}, or end what else uses {device}"
        ) from error


def cpu_has_bf16() -> bool:
    """Returns whether this processor has bf16 instructions that torch uses: AMX or AVX-512 BF16."""
    import torch

    avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return bool(cpu_has_amx() or avx512())


def cpu_has_amx() -> bool:
    """Returns whether this processor has AMX, which multiplies matrices in bf16."""
    import torch

    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def num_devices(accelerator: Accelerator = "auto", devices: Devices = 1) -> int:
    """Returns how many devices are asked for; which ones is no part of a result.

    Raises:
        ValueError: They are asked for by ``auto`` or -1, and there is no such device here.

    >>> [num_devices(devices=devices) for devices in (1, "2", "0,", [3], [0, 2])]
    [1, 2, 1, 1, 2]
    """
    if isinstance(devices, list):
        return len(devices)
    text = str(devices).strip()
    if "," in text:
        return len([part for part in text.split(",") if part.strip()])
    if text.isdecimal():
        return int(text)
    found = _find_devices(devices, find_kind(accelerator))
    return found if isinstance(found, int) else len(found)
