"""What a command says of a bundle's index, checked before hours of embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visual_search.config.builders import ConfigError


def check_index_settings(settings: Mapping[str, Any]) -> None:
    """Checks what a command says of a bundle's index, before hours of embedding and not after.

    Args:
        settings: Its ``index``, ``target_recall`` and ``num_threads``; None leaves them open.

    Raises:
        ConfigError: There is no such kind, its package is not installed, or a number is out of
            range.
    """
    from importlib.util import find_spec

    from visual_search.knn.plan import KINDS, check_targets

    kind, recall, threads = (settings[name] for name in ("index", "target_recall", "num_threads"))
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"index={kind}; expected one of {', '.join(KINDS)}: set index=auto")
    if kind == "lancedb" and find_spec("lancedb") is None:
        raise ConfigError(
            "index=lancedb, and the package lancedb is not installed; expected the extra of that "
            "name: pip install 'visual-search[lancedb]', or set index=auto"
        )
    if threads is not None and threads < 1:
        raise ConfigError(f"num_threads={threads}; expected at least 1: leave it out for all cores")
    if recall is not None:
        try:
            check_targets(recall, recall_k=1)
        except ValueError as error:
            raise ConfigError(str(error)) from error
