"""Where builders come from: this package, and plug-ins, all found by the same mark.

A builder is a function or class with `visual_search.builder` above it. A plug-in is a package or
module with builders of its own. It is here where an installed package declares it by an entry point
(`ENTRY_POINTS`), or where the command line (``plugins=[my_lab]``) or the environment (`VARIABLE`)
names it; no file can: to read a run, a bundle or a config starts nobody's code. The ``conf`` folder
beside a package's code composes like this one's.

Nothing is imported to find them: marks are read in the source, as ``--help`` has to be quick.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# Config group -> the group of entry points by which a package declares builders for it: one that
# is named (my_lab.networks:my_variant), or all that are marked in a module (my_lab.networks).
ENTRY_POINTS = {
    "model": "visual_search.models",
    "objective": "visual_search.objectives",
    "augmentation": "visual_search.augmentations",
    "sampler": "visual_search.samplers",
    "data": "visual_search.data",
    "callbacks": "visual_search.callbacks",
    "protocol": "visual_search.protocols",
    "embedder": "visual_search.embedders",
}
VARIABLE = "VISUAL_SEARCH_PLUGINS"
OWN = "visual_search"
_MARKER = r"(?:\w+\.)*builder\(\s*[\"'](?P<group>\w+)[\"']\s*\)"
_MARKS = [
    re.compile(rf"^@{_MARKER}.*?^(?:def|class) (?P<name>\w+)", re.M | re.S),
    re.compile(rf"^(?P<name>\w+) = {_MARKER}\(", re.M),
]


class Marked(NamedTuple):
    """A builder that is marked in a source file: its config group and its full name."""

    group: str
    target: str


def builders_of_plugins(group: str) -> Iterator[str]:
    """Returns the full names of the builders that plug-ins bring to a config group.

    Raises:
        ValueError: A plug-in is not on the path, or marks a builder for no group.
    """
    for value in _declared().get(group, ()):
        module, is_one, name = value.partition(":")
        if is_one:
            yield f"{module}.{name}"
        else:
            yield from marked(module, group)
    for module in named():
        yield from marked(module, group)


def marked(module: str, group: str) -> list[str]:
    """Returns the full names of a group's builders that are marked in a module, or below it.

    Raises:
        ValueError: The module is not on the path, or marks a builder for no group.
    """
    return [one.target for one in _marks(module) if one.group == group]


@functools.cache
def _marks(module: str) -> tuple[Marked, ...]:
    path = source_of(module)
    if path is None:
        raise ValueError(
            f"the plug-in {module} is not on the path; expected a module that can be imported: "
            "install its package, or start in its folder with python -m (or PYTHONPATH=DIR)"
        )
    found = []
    folder = path.parent if path.name == "__init__.py" else path
    for file in sorted(folder.rglob("*.py")) if folder.is_dir() else [path]:
        text = file.read_text(encoding="utf-8")
        found_here = [one for mark in _MARKS for one in mark.finditer(text)]
        for group, name in [(one["group"], one["name"]) for one in found_here]:
            if group not in ENTRY_POINTS:
                raise ValueError(
                    f"{file} marks {name} as a builder of {group!r}; expected one of "
                    f"{', '.join(ENTRY_POINTS)}"
                )
            parts = file.relative_to(folder).with_suffix("").parts if folder.is_dir() else ()
            parts = parts[:-1] if parts[-1:] == ("__init__",) else parts
            found.append(Marked(group, ".".join([module, *parts, name])))
    return tuple(found)


def source_of(module: str) -> Path | None:
    """Returns the file of a module, of a package its ``__init__.py``, without importing it.

    The file of a folder without one need not exist. None where there is no such module.
    """
    top, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        return Path(spec.origin) if spec.origin and not parts else None
    for folder in map(Path, spec.submodule_search_locations):
        path = folder.joinpath(*parts)
        if path.is_dir():
            return path / "__init__.py"
        if parts and (file := path.with_suffix(".py")).is_file():
            return file
    return None


@functools.cache
def _declared() -> dict[str, list[str]]:
    """Returns what installed packages declare: config group -> values of entry points."""
    from importlib.metadata import distributions

    found: dict[str, list[str]] = {}
    groups = {declared: group for group, declared in ENTRY_POINTS.items()}
    for distribution in distributions():
        if "[visual_search." not in (distribution.read_text("entry_points.txt") or ""):
            continue
        for entry in distribution.entry_points:
            group = groups.get(entry.group)
            if group is None or entry.value in found.get(group, ()):
                continue
            if source_of(entry.module) is None:
                print(f"left out: {entry.module}, that {distribution.name} declares, is not there"
                      f" ({entry.group}); install it anew", file=sys.stderr)  # fmt: skip
            else:
                found.setdefault(group, []).append(entry.value)
    return found


def named() -> list[str]:
    """Returns the plug-ins that the command line or the environment names."""
    return [name for name in os.environ.get(VARIABLE, "").replace(",", " ").split() if name]


def take_names(arguments: Iterable[str]) -> list[str]:
    """Returns the arguments without ``plugins=``, whose modules are plug-ins from here on.

    The processes that this one starts find them in the environment.

    Raises:
        ValueError: One is no name of a module, or not on the path.
    """
    left, names = [], named()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key.lstrip("+") != "plugins":
            left.append(argument)
            continue
        for name in value.strip("[]").split(","):
            if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", plain := name.strip(" \"'")):
                raise ValueError(
                    f"{argument} names {plain!r}; expected modules to import, as in "
                    "plugins=[my_lab,my_losses]"
                )
            names += [] if plain in names else [plain]
    for name in names:
        _marks(name)
    if names != named():
        os.environ[VARIABLE] = ",".join(names)
    return left


def here() -> list[str]:
    """Returns the top packages of all plug-ins."""
    values = [*named(), *(value for declared in _declared().values() for value in declared)]
    return list(dict.fromkeys(value.partition(":")[0].partition(".")[0] for value in values))


def conf_folders(own: Path) -> list[Path]:
    """Returns the ``conf`` folders of plug-ins.

    Args:
        own: This package's, which comes first.

    Raises:
        ValueError: A file of one would never be found, as another has its name.
    """
    found: list[Path] = []
    for package in here():
        path = source_of(package)
        if path is None or path.stem != "__init__" or not (folder := path.parent / "conf").is_dir():
            continue
        for file in folder.rglob("*.yaml"):
            for other in (own, *found):
                if (other / file.relative_to(folder)).is_file():
                    raise ValueError(
                        f"the plug-in {package} has a file {file.relative_to(folder)} as {other} "
                        "has; expected a name of its own: rename it"
                    )
        found.append(folder)
    return found


def how_to_name(group: str, target: str) -> str:
    """Returns how a builder of somebody else's becomes one that a config may name, or nothing."""
    package = target.partition(".")[0]
    if package in (OWN, "lightning") or "." not in target:
        return ""
    if package in here():
        return f'; {package} is a plug-in here: write @builder("{group}") above it'
    return (
        f"; {package} is no plug-in here: name it with plugins=[{package}] (or {VARIABLE}="
        f"{package}), or install a package that declares it (docs/extending.md)"
    )
