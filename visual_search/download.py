"""Downloads the pictures that a catalogue needs, or any list of names and URLs.

``python -m visual_search.download data=complete_the_look data.path=FILE data.pictures=FOLDER``;
``--help`` lists what can be set. The same command again goes on where it was. It ends with status
0 when nothing is left to try (what is gone is no fault), with 1 when something is, and with
128 + the signal's number when it was told to stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("download", download_command)


def download_command(config: DictConfig) -> None:
    """Downloads what the composed config names, and prints what has become of it."""
    from omegaconf import OmegaConf

    from visual_search.downloading import download_listed, print_download

    settings: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        config, resolve=True, throw_on_missing=False
    )
    downloaded = download_listed(settings)
    print_download(downloaded)
    if downloaded.status:
        raise SystemExit(downloaded.status)


if __name__ == "__main__":
    main()
