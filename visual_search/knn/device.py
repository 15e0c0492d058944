"""When a GPU may answer in the CPU's place: only after it has shown the same answers."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.exact_gallery import Gallery, RoundedSearcher, nearest

Device: TypeAlias = Literal["auto", "cpu", "gpu"]

# 2^26 numbers are 131,072 items of 512. An estimate, not measured on a GPU: two CPU cores search
# 10,000 queries among 10,000 such items in 1.5 s, less than a CUDA context may take to come up, and
# need 20 s among 131,072.
AUTO_GPU_NUM_VALUES = 2**26
GPU_MAX_CANDIDATES = 2048  # FAISS's own limit for k on a GPU
GPU_SCRATCH_BYTES = 2**28  # FAISS takes 1.5 GB unless told; training may want the rest
SAMPLE_SIZE = 128
TRIAL_SECONDS = 120.0  # a CUDA context takes some to come up, a hanging driver for ever

NO_GPU = "FAISS sees no GPU"

# What FAISS does on a GPU before it answers anything, in small.
_TRIAL = f"""
import sys, numpy, faiss
gpu = int(sys.argv[1])
num = faiss.get_num_gpus()
if num <= gpu:
    sys.exit(f"FAISS sees {{num}} GPU(s), not number {{gpu}}" if num else "{NO_GPU}")
points = numpy.eye(64, dtype=numpy.float32)
flat = faiss.IndexFlatL2(64)
flat.add(points)
resources = faiss.StandardGpuResources()
resources.setTempMemory({2**20})
found = faiss.index_cpu_to_gpu(resources, gpu, flat).search(points, 1)[1]
if found[:, 0].tolist() != list(range(64)):
    sys.exit("it does not find an item by itself")
"""


@dataclass(frozen=True)
class Placement:
    """Who answers, and why it is that one.

    Attributes:
        searcher: A FAISS index over the centred embeddings.
        device: Where it computes.
        reason: One sentence for the run's record.
        gpu_failed: A GPU was wanted, and could not be used.
    """

    searcher: RoundedSearcher
    device: Literal["cpu", "gpu"]
    reason: str
    gpu_failed: bool = False


class _GpuUpToItsLimit:
    """Answers on the GPU, and on the CPU where more candidates are asked than a GPU can list.

    The CPU goes on alone once the GPU fails, as when others take its memory in the meantime.
    """

    def __init__(self, clone: RoundedSearcher, cpu: RoundedSearcher, resources: Any) -> None:
        self._clone: RoundedSearcher | None = clone
        self._cpu = cpu
        self._resources = resources  # must live as long as the clone that uses its memory
        self.failure = ""

    def search(
        self, queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self._clone is not None and k <= GPU_MAX_CANDIDATES:
            try:
                return self._clone.search(queries, k)
            except RuntimeError as error:
                self.failure = f"the GPU failed while it searched: {str(error).strip()}"
                self._clone = self._resources = None
        return self._cpu.search(queries, k)


def check_device(device: object) -> None:
    """Refuses what is no name of a device.

    Raises:
        ValueError: It is none of `Device`.
    """
    if device not in get_args(Device):
        raise ValueError(f"index.device is {device!r}; expected 'auto', 'cpu' or 'gpu': choose one")


@functools.cache
def gpu_trouble(gpu: int) -> str:
    """Says why FAISS cannot use a GPU, tried once, in a process of its own; empty where it can.

    A driver that answers with an error, or a card for which FAISS has no kernels, ends the process
    from within (a C assertion, status 134): no exception tells of it.

    Args:
        gpu: Its number, from 0, among those that are visible.
    """
    command = [sys.executable, "-c", _TRIAL, str(gpu)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"FAISS could not be tried on GPU {gpu}: {error}"
    if done.returncode == 0:
        return ""
    said = " ".join(done.stderr.split())[-300:]
    if done.returncode == 1 and said.startswith("FAISS sees"):
        return said
    return f"FAISS cannot use GPU {gpu} (a trial ended with status {done.returncode}): {said}"


def place(cpu: Any, gallery: Gallery, device: Device, gpu: int = 0) -> Placement:
    """Chooses who answers.

    A GPU that is missing, cannot hold the gallery or answers otherwise than the CPU is no error:
    the CPU answers, and the reason says so.

    Args:
        cpu: ``faiss.IndexFlatL2`` over the centred embeddings.
        gallery: The same items.
        device: ``cpu``, ``gpu``, or ``auto``: the GPU from `AUTO_GPU_NUM_VALUES` numbers on.
        gpu: Which of the visible GPUs.

    Raises:
        ValueError: ``device`` has another name.
    """
    check_device(device)
    if device == "cpu":
        return Placement(cpu, "cpu", "the CPU was asked for")
    num_values = gallery.embeddings.size
    if device == "auto" and num_values < AUTO_GPU_NUM_VALUES:
        return Placement(
            cpu,
            "cpu",
            f"{num_values:,} numbers are below the {AUTO_GPU_NUM_VALUES:,} from which a GPU pays",
        )
    trouble = gpu_trouble(gpu)
    if trouble:
        wanted = device == "gpu" or trouble != NO_GPU
        return Placement(cpu, "cpu", trouble, gpu_failed=wanted)
    import faiss

    try:
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(GPU_SCRATCH_BYTES)
        clone = faiss.index_cpu_to_gpu(resources, gpu, cpu)
        difference = _difference(clone, cpu, gallery)
    except RuntimeError as error:  # out of memory
        reason = f"FAISS could not use GPU {gpu}: {str(error).strip()}"
        return Placement(cpu, "cpu", reason, gpu_failed=True)
    if difference:
        return Placement(cpu, "cpu", f"the GPU clone was refused: {difference}", gpu_failed=True)
    return Placement(
        _GpuUpToItsLimit(clone, cpu, resources),
        "gpu",
        f"the clone on GPU {gpu} answered a sample exactly as the CPU index does",
    )


class _Recorder:
    """Passes questions on and notes how often the answer did not settle the matter."""

    def __init__(self, searcher: RoundedSearcher) -> None:
        self._searcher = searcher
        self.num_asked = 0

    def search(
        self, queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.num_asked += len(queries)
        return self._searcher.search(queries, k)


def _difference(clone: RoundedSearcher, cpu: RoundedSearcher, gallery: Gallery) -> str:
    """Says how the clone's answers to a sample differ from the CPU's; empty where they do not.

    The sample is made of items and of the points halfway between them. Since `nearest` mends what a
    bad searcher proposes, needing to ask more often than the CPU counts as a difference, too.
    """
    rows = np.unique(np.linspace(0, len(gallery) - 1, SAMPLE_SIZE).astype(np.int64))
    items = gallery.embeddings[rows]  # [n, D]
    between = items[:-1] / 2 + items[1:] / 2
    sample = np.concatenate([items, between.astype(np.float32)])
    k = min(10, len(gallery))
    none = np.full(len(sample), -1, dtype=np.int64)
    asked_cpu, asked_clone = _Recorder(cpu), _Recorder(clone)
    expected_rows, expected_squared = nearest(gallery, asked_cpu, sample, k, none)
    got_rows, got_squared = nearest(gallery, asked_clone, sample, k, none)
    wrong = (got_rows != expected_rows) | (got_squared != expected_squared)
    if wrong.any():
        return f"{int(wrong.any(axis=1).sum())} of {len(sample)} sample queries answered otherwise"
    if asked_clone.num_asked > asked_cpu.num_asked:
        return (
            f"it had to be asked {asked_clone.num_asked} times where the CPU needed "
            f"{asked_cpu.num_asked}: its distances are further off than float32 rounding explains"
        )
    return ""
