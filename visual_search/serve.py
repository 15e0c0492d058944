"""Serves bundles on a page and an API: drop a picture, see similar products.

``python -m visual_search.serve bundle=DIR``; ``--help`` lists what can be set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("serve", serve_command)


def serve_command(config: DictConfig) -> None:
    """Serves the bundles that the composed config names until the process is told to stop."""
    from omegaconf import OmegaConf

    from visual_search.serving_command import serve_bundles

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    serve_bundles(settings)


if __name__ == "__main__":
    main()
