"""Makes a finished run into a search bundle: encoder as ONNX, index, items, model card.

``python -m visual_search.export run=PATH out=DIR``; ``--help`` lists what can be set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("export", export_command)


def export_command(config: DictConfig) -> None:
    """Exports the run that the composed config names, and prints where the bundle lies."""
    from omegaconf import OmegaConf

    from visual_search.exporting import export_run, print_export

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    print_export(export_run(settings))


if __name__ == "__main__":
    main()
