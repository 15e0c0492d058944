"""What a launcher told this process: whether it is the first, on which of how many nodes.

A launcher (``torchrun``, SLURM's ``srun``, Lightning for the cards of one machine) starts a process
for each device and says in environment variables which one it is. Who leads, and so prints, locks
and writes, is asked here before torch is loaded; below Lightning its ``is_global_zero`` says it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

# Rank 0 has a zero in each that is set: torchrun's RANK counts over all nodes; SLURM_PROCID as
# well; NODE_RANK and LOCAL_RANK are what Lightning tells the processes that it starts.
_RANKS = ("RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK")
_INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs in which a user starts by hand


@dataclass(frozen=True)
class Launch:
    """Processes that a launcher started together, before any of them did a thing.

    Attributes:
        by: The launcher, as a message names it.
        num_nodes: Machines, 1 or more.
        per_node: Processes on each.
    """

    by: str
    num_nodes: int
    per_node: int

    @property
    def num_processes(self) -> int:
        """On all nodes together."""
        return self.num_nodes * self.per_node


def is_first_process() -> bool:
    """Returns whether this process leads: the only one, or rank 0 of all on all nodes."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def launch() -> Launch | None:
    """Returns how ``torchrun`` or ``srun`` started this process; None where neither did.

    Raises:
        ValueError: SLURM gave several tasks, and not a number of them for each node; or they are
            not started yet, as without ``srun``.
    """
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        num_processes = int(environment["WORLD_SIZE"])
        per_node = int(environment["LOCAL_WORLD_SIZE"])
        return Launch("torchrun", num_processes // per_node, per_node)
    num_tasks = int(environment.get("SLURM_NTASKS", "1"))
    if num_tasks == 1 or environment.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return None
    if "SLURM_STEP_ID" not in environment:
        raise ValueError(
            f"SLURM gave {num_tasks} tasks (SLURM_NTASKS), and this process was started without "
            "srun; expected one process a task: write srun before the command, or ask for one task"
        )
    num_nodes = int(environment.get("SLURM_STEP_NUM_NODES") or environment["SLURM_NNODES"])
    if "SLURM_NTASKS_PER_NODE" not in environment or num_tasks % num_nodes:
        raise ValueError(
            f"SLURM started {num_tasks} tasks on {num_nodes} nodes (SLURM_NTASKS, SLURM_NNODES); "
            "expected the same number on each, given as --ntasks-per-node; give that in the place "
            "of --ntasks"
        )
    return Launch("srun", num_nodes, num_tasks // num_nodes)
