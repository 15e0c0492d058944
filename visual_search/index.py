"""Changes a bundle without retraining: new products in, old ones out, the index built anew.

``python -m visual_search.index add|remove|rebuild|info bundle=DIR ...``; ``--help`` lists what can
be set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("index", index_command)


def index_command(config: DictConfig) -> None:
    """Changes the bundle that the composed config names, and prints what became of it."""
    from omegaconf import OmegaConf

    from visual_search.bundle_changes import change_bundle, print_changed

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    print_changed(change_bundle(settings))


if __name__ == "__main__":
    main()
