"""Compares finished runs on the same queries: differences, intervals, tests, pictures.

``python -m visual_search.compare runs=[A,B]``; ``--help`` lists what can be set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("compare", compare_command)


def compare_command(config: DictConfig) -> None:
    """Compares what the composed config names, prints the verdict, and writes the page."""
    from omegaconf import OmegaConf

    from visual_search.comparisons import compare_runs, print_comparison

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    print_comparison(compare_runs(settings))


if __name__ == "__main__":
    main()
