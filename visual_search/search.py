"""Searches a bundle for what looks like a picture: table, picture grid or JSON.

``python -m visual_search.search bundle=DIR image=PATH``; ``--help`` lists what can be set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("search", search_command)


def search_command(config: DictConfig) -> None:
    """Searches the bundle that the composed config names, and prints what it finds."""
    from omegaconf import OmegaConf

    from visual_search.searching import print_search, search_bundle

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    print_search(search_bundle(settings), settings)


if __name__ == "__main__":
    main()
