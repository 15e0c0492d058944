"""Runs whose data is no longer where it was when they were trained."""

from __future__ import annotations

import contextlib
import copy
import inspect
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.config.builders import ConfigError, bind
from visual_search.config.schemas import ItemLimits, Node, SplitConfig, TrainSchema
from visual_search.storage.bucket import Bucket, StorageError
from visual_search.storage.uris import is_object_uri, object_uri

if TYPE_CHECKING:
    from visual_search.runs.run import Run


@contextlib.contextmanager
def telling_moved_data(command: str, run: Run, data: Node, given: Node | None) -> Iterator[None]:
    """Turns the error of data that a finished run no longer finds into the command that helps.

    Args:
        command: What is running, as ``evaluate``.
        run: Whose config says where its data lies.
        data: That node, with what the command replaces.
        given: What the command replaces of it.

    Raises:
        ConfigError: Names what is gone, and the command as it was typed, with where it lies now.
    """
    try:
        yield
    except (FileNotFoundError, StorageError) as error:
        own = {} if "_target_" in (given or {}) else data
        gone = {
            key: own[key]
            for key in _path_keys(data)
            if own.get(key) and key not in (given or {}) and _is_lost(str(own[key]), error)
        }
        if not gone:
            raise
        lost = " and ".join(f"data.{key}={value}" for key, value in gone.items())
        places = " ".join(f"+data.{key}=WHERE_IT_LIES_NOW" for key in gone)
        raise ConfigError(
            f"{error}\nRun {run.folder} was trained on {lost}, which is "
            f"{'not reached' if isinstance(error, StorageError) else 'no longer there'}; expected "
            f"the same data, wherever it lies now; say where:\n  {typed_command(command)} {places}"
        ) from error


def _is_lost(place: str, error: FileNotFoundError | StorageError) -> bool:
    """Returns whether nothing is at a place; one that did not answer is not asked again."""
    if isinstance(error, StorageError):
        return is_object_uri(place) and str(error).startswith(str(object_uri(place)))
    if not is_object_uri(place):
        return not Path(place).exists()
    from visual_search.catalog.readers.sources import is_file

    address = object_uri(place)
    return not is_file(address) and not Bucket(address).names()


def _path_keys(data: Node) -> list[str]:
    """Returns the arguments of a data node's reader that name a place."""
    builder, _ = bind("data", data)
    parameters = inspect.signature(builder).parameters.values()
    return [one.name for one in parameters if "PathLike" in str(one.annotation)]


def typed_command(command: str) -> str:
    """Returns the running command as it was typed, quoted for a shell.

    Args:
        command: Its name, as ``evaluate``.
    """
    typed, module = sys.orig_argv, f"visual_search.{command}"
    words = ["python", "-m", module, *sys.argv[1:]]
    if module in typed:
        words = ["python", "-m", *typed[typed.index(module) :]]
    elif command in typed:  # visual-search evaluate ...
        words = ["visual-search", *typed[typed.index(command) :]]
    return shlex.join(words)


def merged_settings(
    own: TrainSchema, data: Node, split: SplitConfig | None, cache_dir: str
) -> TrainSchema:
    """Returns a run's settings with the catalogue that a command names, all of its items.

    Args:
        own: The run's.
        data: In the place of the run's, whole or only some of its keys.
        split: In the place of the run's; None keeps that.
        cache_dir: Where decoded pictures are kept.
    """
    merged = copy.deepcopy(own)
    merged.data = replaced(own.data, data)
    merged.split = split or merged.split
    merged.pictures.cache_dir = cache_dir
    merged.loader.max_items_per_category = ItemLimits()
    return merged


def replaced(own: Node, given: Node) -> Node:
    """Returns a node with what is given: another one, or some of its keys (+data.path=...)."""
    return {**({} if "_target_" in given else own), **given}
