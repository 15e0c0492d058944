"""What computed a result: processor, cards, drivers, and in which precision, as plain values."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from lightning import Trainer

    from visual_search.reading import DeviceFacts

# Of a processor's flags those on which the speed, the precision and the last bits of a network
# hang; as Linux spells them, x86 before Arm.
_INSTRUCTIONS = (
    "amx_bf16", "avx512_bf16", "avx512f", "avx2", "fma", "bf16", "sve", "asimd",
)  # fmt: skip
_BF16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "bf16": "Arm BF16"}
EMULATED = "emulated in float32"


class ProcessorFacts(TypedDict, total=False):
    """A processor as ``environment.json`` keeps it; the capitals are variables that were set."""

    processor: str
    num_cpus: int | None
    instructions: list[str]
    bf16: str
    ONEDNN_MAX_CPU_ISA: str
    ATEN_CPU_CAPABILITY: str


def processor_facts() -> ProcessorFacts:
    """Returns the processor, the instructions that matter, and what computes its bf16.

    A trained number moves in its second digit with the last two: the same bf16 is computed by AMX,
    by AVX-512, or emulated.
    """
    name, flags = _processor()
    instructions = [flag for flag in _INSTRUCTIONS if flag in flags]
    facts: ProcessorFacts = {
        "processor": name,
        "num_cpus": os.cpu_count(),
        "instructions": instructions,
        "bf16": next((by for flag, by in _BF16.items() if flag in flags), EMULATED),
    }
    # What narrows them down: to these instructions oneDNN and torch keep.
    for variable in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        if variable in os.environ:
            facts[variable] = os.environ[variable]
    return facts


def _processor() -> tuple[str, frozenset[str]]:
    """Returns the processor's name, and its flags where Linux tells them."""
    values: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            values.setdefault(name.strip().lower(), value.strip())
    except OSError:
        pass
    flags = values.get("flags") or values.get("features") or ""
    name = values.get("model name") or _said_by("sysctl", "-n", "machdep.cpu.brand_string")
    return name or platform.processor() or platform.machine(), frozenset(flags.split())


def device_facts(trainer: Trainer) -> DeviceFacts:
    """Returns what a trainer computes on and how exactly.

    Returns:
        ``device`` as torch writes it, ``device_name``, ``num_devices``, ``precision``; of the CPU
        ``num_threads`` and ``bf16``; of an NVIDIA or AMD GPU ``card``: its capability and memory,
        driver, CUDA and cuDNN.
    """
    import torch

    device = trainer.strategy.root_device
    processor = processor_facts()
    facts: DeviceFacts = {
        "device": str(device),
        "device_name": processor["processor"],
        "num_devices": trainer.world_size,
        "precision": str(trainer.precision),
    }
    if device.type == "cpu":
        return facts | {"num_threads": torch.get_num_threads(), "bf16": processor["bf16"]}
    if device.type != "cuda":
        return facts
    card = torch.cuda.get_device_properties(device)
    details: dict[str, object] = {
        "compute_capability": f"{card.major}.{card.minor}",
        "memory_bytes": card.total_memory,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    return facts | {"device_name": card.name, "card": details}


def device_summary(facts: DeviceFacts) -> DeviceFacts:
    """Returns of `device_facts` what stands beside a number; the card's details are left out."""
    found: DeviceFacts = {**facts}
    found.pop("card", None)
    return found


def device_sentence(facts: DeviceFacts) -> str:
    """Returns `device_facts` in a line; what an earlier version did not write is left out.

    >>> device_sentence({"device": "cuda:0", "device_name": "NVIDIA H200", "num_devices": 2,
    ...                  "precision": "bf16-mixed"})
    '2 x NVIDIA H200 (cuda:0 and on), bf16-mixed'
    >>> device_sentence({"device": "cpu", "device_name": "AMD EPYC", "num_devices": 1,
    ...                  "precision": "bf16-mixed", "num_threads": 2, "bf16": EMULATED})
    'AMD EPYC (cpu), 2 threads, bf16-mixed (emulated in float32)'
    >>> device_sentence({"device": "cpu", "precision": "32-true"})
    'cpu, 32-true'
    """
    num, device = facts.get("num_devices") or 1, str(facts["device"])
    parts = [device]
    if facts.get("device_name"):
        count = f"{num} x " if num > 1 and device != "cpu" else ""
        where = f"{device} and on" if count else device
        parts = [f"{count}{facts['device_name']} ({where})"]
    if num > 1 and device == "cpu":
        parts.append(f"{num} processes")
    if threads := facts.get("num_threads"):
        parts.append(f"{threads} thread" + "s" * (threads > 1))
    precision = str(facts.get("precision") or "")
    if precision.startswith("bf16") and facts.get("bf16"):
        precision += f" ({facts['bf16']})"
    return ", ".join([*parts, precision] if precision else parts)


def _driver() -> str | None:
    """Returns the version of NVIDIA's driver, None where nothing tells it."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").split()
        return next(word for word in words if word[:1].isdigit() and "." in word)
    except (OSError, StopIteration):
        said = _said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        return said.splitlines()[0] if said else None


def _said_by(*command: str) -> str:
    """Returns what a program of the system prints; empty where there is none or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
