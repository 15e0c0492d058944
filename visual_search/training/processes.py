"""Processes that a launcher started on one or several nodes: the first goes ahead, then all work.

Torch is loaded only where several were started, so that a command that merely prints a finished
run stays quick.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import cast

from visual_search.launcher import Launch, is_first_process, launch
from visual_search.training.devices import Accelerator, find_kind

# How gloo, NCCL and torch's store say that somebody else is gone.
_GONE = re.compile(
    "closed by peer|connection (was )?(reset|refused|closed)|broken pipe|remote process exited|"
    "nccl.*(remote|abort)|socket timeout|recvvalue failed|failed to (recv|send)",
    re.IGNORECASE,
)


class StoppedElsewhereError(RuntimeError):
    """Another process of the same launch ended; the message says what to do."""


class Processes:
    """The processes of a launch before they work together: the first goes ahead, the others wait.

    The first one locks the folder, reads the catalogue, fetches pictures, keeps the splits and
    finds out what is left to do; then it says whether the others are to help. Processes that
    Lightning starts need none of it: they are started when there is work for them.

    Args:
        launched: How they were started; None where nobody but Lightning starts any.
    """

    def __init__(self, launched: Launch | None) -> None:
        self._is_waiting = launched is not None and launched.num_processes > 1

    def wait(self) -> bool:
        """Returns in a further process whether there is work, once the first one knows.

        Raises:
            StoppedElsewhereError: The first process ended with an error, which it prints.
        """
        word = self._share("") if self._is_waiting else "work"
        if word == "failed":
            raise StoppedElsewhereError("the first process stopped, and says why")
        return word == "work"

    def call(self) -> None:
        """Lets the others work, once; called by the first process."""
        self._tell("work")

    def dismiss(self, *, failed: bool) -> None:
        """Lets the others end unless they were called; called by the first process."""
        self._tell("failed" if failed else "finished")

    def _tell(self, word: str) -> None:
        if self._is_waiting:
            self._share(word)

    def _share(self, word: str) -> str:
        from visual_search.training.distributed import from_first

        self._is_waiting = False
        return from_first(word)


@contextlib.contextmanager
def joined_processes(accelerator: str) -> Iterator[Processes]:
    """Joins the processes that ``torchrun`` or ``srun`` started, for as long as the work takes.

    Args:
        accelerator: Where they compute, see `find_kind`.

    Raises:
        ValueError: The launcher started something else than the same number on each node.
        StoppedElsewhereError: One of the others ended, with an error or killed.
    """
    launched = launch()
    processes = Processes(launched)
    if launched is None or launched.num_processes == 1:
        yield processes
        return
    _join(launched, "nccl" if find_kind(cast(Accelerator, accelerator)) == "cuda" else "gloo")
    failed = True
    try:
        yield processes
        failed = False
    finally:
        if is_first_process():
            processes.dismiss(failed=failed)
        _part()


@contextlib.contextmanager
def telling_gone() -> Iterator[None]:
    """Turns what a lost connection raises into what happened and what to do.

    Raises:
        StoppedElsewhereError: One of the other processes ended.
    """
    try:
        yield
    except RuntimeError as error:
        gone = _GONE.search(str(error))
        if gone is None:
            raise
        raise StoppedElsewhereError(
            "another process of this launch ended, with an error that it prints or killed with its "
            f"node ({gone[0].lower()}); expected all of them until the end: start the "
            "same command again on all nodes, it goes on from the last checkpoint"
        ) from error


def _join(launched: Launch, backend: str) -> None:
    """Connects the processes, as Lightning would when it begins to train."""
    import torch
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    from visual_search.training.distributed import WAIT

    environment = TorchElasticEnvironment() if launched.by == "torchrun" else SLURMEnvironment()
    os.environ["MASTER_ADDR"] = environment.main_address
    os.environ["MASTER_PORT"] = str(environment.main_port)
    if backend == "nccl":
        torch.cuda.set_device(environment.local_rank())
    torch.distributed.init_process_group(
        backend, rank=environment.global_rank(), world_size=environment.world_size(), timeout=WAIT
    )


def _part() -> None:
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
