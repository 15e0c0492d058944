"""Checks a catalogue before anybody trains on it: rows, pictures, copies, leaks, categories.

``python -m visual_search.check data=folder data.root=PATH``; ``--help`` lists what can be set.
Its exit status is 1 where it finds an error, so that it can guard a pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("check", check_command)


def check_command(config: DictConfig) -> None:
    """Checks the catalogue that the composed config names, prints and writes what it finds.

    Raises:
        SystemExit: With status 1, where there is an error; warnings and notes end with 0.
    """
    from omegaconf import OmegaConf

    from visual_search.checking import check_data
    from visual_search.reports.check_tables import print_check

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    checked = check_data(settings)
    print_check(checked)
    if checked.num("error"):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
