"""What a command says of a bundle's index, checked before hours of embedding."""

from __future__ import annotations

from visual_search.config.builders import ConfigError, told_as_config


def check_index_settings(
    kind: str | None, target_recall: float | None, num_threads: int | None
) -> None:
    """Checks what a command says of a bundle's index, before hours of embedding and not after.

    Args:
        kind: Its ``index``; None leaves it open, as the others.
        target_recall: Of an approximate one.
        num_threads: Of encoder and index.

    Raises:
        ConfigError: There is no such kind, or a number is out of range.
    """
    from visual_search.databases.database import KINDS as DATABASES
    from visual_search.knn.plan import KINDS, check_targets

    if kind in DATABASES:
        raise ConfigError(
            f"index={kind} is a vector database, which is filled from a bundle and searched beside "
            f"it; expected one of {', '.join(KINDS)}: leave index out, then `python -m "
            f"visual_search.index push bundle=DIR to={kind} url=ADDRESS`"
        )
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"index={kind}; expected one of {', '.join(KINDS)}: set index=auto")
    if num_threads is not None and num_threads < 1:
        raise ConfigError(
            f"num_threads={num_threads}; expected at least 1: leave it out for all cores"
        )
    if target_recall is not None:
        with told_as_config():
            check_targets(target_recall, recall_k=1)
