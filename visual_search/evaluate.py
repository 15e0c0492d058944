"""Measures a finished run, or embeddings from outside, by any protocol on any catalogue.

``python -m visual_search.evaluate run=PATH protocol=leave_one_out``; ``--help`` lists what can be
set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("evaluate", evaluate_command)


def evaluate_command(config: DictConfig) -> None:
    """Measures what the composed config describes; in a multirun one of its jobs."""
    from omegaconf import OmegaConf

    from visual_search.cli.multirun import record_job
    from visual_search.reports.tables import print_evaluation
    from visual_search.runs.measuring import measure_embeddings, measure_run

    settings: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        config, resolve=True, throw_on_missing=False
    )
    with record_job(config) as job:
        measure = measure_embeddings if settings["embeddings"] else measure_run
        job.measured = measure(settings)
        print_evaluation(job.measured)


if __name__ == "__main__":
    main()
