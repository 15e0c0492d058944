"""Writes the embeddings of a catalogue by a finished run's network, in shards (Parquet).

``python -m visual_search.embed run=PATH out=DIR``; ``--help`` lists what can be set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("embed", embed_command)


def embed_command(config: DictConfig) -> None:
    """Embeds the catalogue that the composed config names, and prints where the shards lie."""
    from omegaconf import OmegaConf

    from visual_search.catalog_embeddings import embed_catalog, print_embedded

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    embedded = embed_catalog(settings)
    if embedded is not None:
        print_embedded(embedded)


if __name__ == "__main__":
    main()
