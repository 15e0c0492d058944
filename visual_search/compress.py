"""Measures how small a finished run's gallery can be stored, and what that costs in quality.

``python -m visual_search.compress run=PATH``; ``--help`` lists what can be set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("compress", compress_command)


def compress_command(config: DictConfig) -> None:
    """Measures every codec on the run that the composed config names, and prints the verdict."""
    from omegaconf import OmegaConf

    from visual_search.compressions import compress_run, print_compression

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    print_compression(compress_run(settings))


if __name__ == "__main__":
    main()
