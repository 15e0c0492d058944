"""Says in one line what is wrong with an override or a file of settings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.cli.sweep_plugins import EXTRA
from visual_search.config.builders import ConfigError, config_folder, config_folders
from visual_search.config.hints import WAYS, alike, alike_beside, holds, instead, same, translated
from visual_search.storage.bucket import StorageError

if TYPE_CHECKING:
    from omegaconf import DictConfig

GLOBAL_GROUPS = (
    "budget",
    "debug",
    "experiment",
    "sweep",
)  # their files change any part of the config
GLOBAL_LINE = "# @package _global_"


def told(error: Exception) -> str:
    """Returns what a command prints of an error: its message, behind its kind where it has one.

    A torchvision that was built for another torch, as the package index's is beside a CPU build of
    PyTorch's own index, is named: whatever imports it first, a loss too, fails by an operator.
    """
    if isinstance(error, ConfigError | StorageError):
        return str(error)
    if re.match(r"operator torchvision::\w+ does not exist", str(error)):
        from importlib.metadata import version

        return (
            f"torchvision {version('torchvision')} cannot be imported beside torch "
            f"{version('torch')} ({error}); expected both of one release, from one index; install "
            "them together, or, where no backbone is trained, run: pip uninstall torchvision"
        )
    return f"{type(error).__name__}: {error}"


def explain_error(error: Exception, overrides: Sequence[str], known: Sequence[str]) -> str:
    """Returns Hydra's error as what was wrong, what was expected and what to do.

    Args:
        error: What Hydra, OmegaConf or the YAML reader raised.
        overrides: As they were given.
        known: What `known_names` gives.
    """
    text = " ".join(str(error).split())
    if plugin := re.search(
        r"Could not find '(hydra/(launcher/(joblib|submitit_slurm)|"
        r"sweeper/(optuna|sampler/(tpe|random|cmaes))))'",
        text,
    ):
        extra = "slurm" if "submitit" in plugin[1] else "sweeps"
        return (
            f"{plugin[1]} is not installed; expected the extra {extra!r}, which brings it; run: "
            f"{EXTRA.format(extra)}"
        )
    for given in overrides:
        group, _, option = given.partition("=")
        if "Config group override must be" not in text or group not in known:
            continue
        if not (files := {path.stem for _, path in _files_of([group])}):
            continue
        if option == "null":
            return (
                f"{given!r} leaves the group out, and this one must be chosen; expected one of "
                f"its files: choose {group}=OPTION (--help lists them)"
            )
        if option not in files:
            listed = ", ".join(sorted(files))
            return f"{given!r} chooses no file of the group {group}; expected one of {listed}"
    if error.__cause__ is not None:
        text += " " + " ".join(str(error.__cause__).split())
    if override := getattr(error, "override", None):
        return (
            f"cannot read {override!r}; expected KEY=VALUE; a value of this key with any of ~ = , "
            "[ ] { } ( ) needs quotes of its own, as in 'KEY=\"...\"'"
        )
    if unheaded := _without_global_line(text, overrides):
        return (
            f"{unheaded} does not start with {GLOBAL_LINE!r}, so its settings would land under "
            "its group's name; expected that as its first line; add it"
        )
    file = re.match(r"In '([^']+/[^']+)':", text)
    where = f"{file[1]}.yaml: " if file else ""
    if choice := re.search(
        r"Could not find '(.+?)/([^/']+)' Available options in '.+?': (.*)", text
    ):
        group, option, rest = choice.groups()
        options = rest.partition(" Config search path")[0].split()
        close = difflib.get_close_matches(option, options, n=1)
        return (
            f"{where}{group}={option}: there is no {group}/{option}.yaml; expected one of "
            f"{', '.join(options)}" + (f"; did you mean '{group}={close[0]}'?" if close else "")
        )
    if missing := re.search(r"Interpolation key '(.+?)' not found full_key: (\S+)", text):
        return (
            f"{missing[2]} refers to ${{{missing[1]}}}, which is no setting; expected a key of the "
            "config; where it is text, write \\${"
        )
    if value := re.search(
        r"(Value .+? could not be conv.+?|Invalid type assign.+?) full_key: (\S+)", text
    ):
        return f"{where}{value[2]} is of a wrong type: {value[1]}"
    for key in _named_keys(text, overrides):
        if key not in known:
            parent = key.rpartition(".")[0]
            beside = [
                name
                for name in known
                if name.rpartition(".")[0] == parent and not name.endswith("_target_")
            ]
            expected = f"; expected one of {', '.join(beside)}" if beside else ""
            if parent in known and not beside:
                expected = f"; expected none, since what was chosen for {parent} has no settings"
            hint = _of_swept_files(key, overrides) or _hint(key, known)
            return f"{where}{key} is no setting{expected}{hint}"
    return re.sub(r" (To append to your config|Config search path|full_key:).*", "", text)


def _of_swept_files(key: str, overrides: Sequence[str]) -> str:
    """Returns what to do where only the files that a multirun goes through may have the key."""
    given = next((one for one in overrides if one.partition("=")[0] == key), "")
    for override in overrides:
        group, _, options = override.partition("=")
        if given and "," in options and (config_folder() / group).is_dir():
            return (
                f"; where every job of {override} has it, give ++{given}, since a multirun looks "
                "first at what its jobs share"
            )
    return ""


def _hint(key: str, known: Sequence[str]) -> str:
    """Returns what was meant by a key: another one, or one of files that were not chosen."""
    files = _keys_of_files(known)
    others = [other for other in files if other not in known]
    group, dot, _ = key.rpartition(".")
    own = [other for other in others if other.rpartition(".")[0] == group] or others
    keys = [name for name in known if not name.endswith("_target_")]
    for way in WAYS:
        if way is alike_beside and (said := instead(key)):
            return f"; {said}"
        in_file = way(key, own)
        if in_file and in_file.rpartition(".")[0] == group and way in (same, translated):
            return _which_files(key, in_file, files)
        if found := way(key, keys):
            return f"; did you mean {found!r}?"
        if in_file and (way is not alike or holds(key, in_file)):
            return _which_files(key, in_file, files)
        if not dot and way is translated and key in _options(known):
            return f"; did you mean '{_options(known)[key]}={key}'?"
    return ""


def _which_files(key: str, found: str, files: Mapping[str, Sequence[str]]) -> str:
    name = found.rpartition(".")[2]
    same_name = [other for other in files if other.rpartition(".")[2] == name]
    if key.rpartition(".")[0] == found.rpartition(".")[0]:
        same_name = [found]
    said = []
    for other in same_name:
        *most, last = files[other]
        which = f"{', '.join(most)} or {last}" if most else last
        place = "" if other == key else f", as {other}"
        said.append(f"{other.rpartition('.')[0]}={which} has it{place}")
    return f"; {'; '.join(said)}"


def _keys_of_files(known: Sequence[str]) -> dict[str, list[str]]:
    """Returns the keys of the files of groups, ``model.frozen``, and which files have each."""
    import yaml

    found: dict[str, list[str]] = {}
    for group, path in _files_of([name for name in known if name not in GLOBAL_GROUPS]):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name in content if isinstance(content, dict) else ():
            if name not in ("defaults", "_target_", path.stem):
                found.setdefault(f"{group}.{name}", []).append(path.stem)
    return found


def _options(known: Sequence[str]) -> dict[str, str]:
    """Returns the options of groups, and the group of each."""
    return {path.stem: group for group, path in _files_of(known)}


def _files_of(known: Sequence[str]) -> list[tuple[str, Path]]:
    return sorted(
        (group, path)
        for group in known
        for folder in config_folders()
        for path in (folder / group).glob("*.yaml")
    )


def _without_global_line(text: str, overrides: Sequence[str]) -> str:
    """Returns the file that lacks the line which lets it change the whole config, if that is it."""
    groups = "|".join(GLOBAL_GROUPS)
    found = re.search(rf"'\w+@({groups})\.", text) or re.search(rf"Key '({groups})' not in", text)
    for override in overrides if found else ():
        group, _, option = override.partition("=")
        if found and group == found[1]:
            return f"{group}/{option}.yaml"
    return ""


def _named_keys(text: str, overrides: Sequence[str]) -> Iterable[str]:
    """Returns the names that an error of Hydra's complains about, the most telling first."""
    given = [override.lstrip("+~").partition("=")[0] for override in overrides]
    for key in re.findall(r"full_key: ([\w./-]+)", text):
        # Of lodaer.batch_size Hydra names lodaer only.
        yield from (name for name in given if name.startswith(f"{key}."))
        yield key
    yield from re.findall(r"Could not override '([^']+)'", text)
    yield from re.findall(r"Key '([^']+)'", text)


def known_names(config_name: str, config: DictConfig) -> list[str]:
    """Returns every dotted key of a command's config, and every group that it can choose from."""
    from omegaconf import DictConfig

    names: list[str] = []

    def walk(node: DictConfig, prefix: str) -> None:
        for key in map(str, node):
            names.append(f"{prefix}{key}")
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                walk(child, f"{prefix}{key}.")

    walk(config, "")
    return sorted({*names, *groups_of(config_name)})


def groups_of(command: str) -> list[str]:
    """Returns the groups that a command can choose from, in the order of its defaults."""
    import yaml

    file = config_folder() / f"{command}.yaml"
    defaults = yaml.safe_load(file.read_text(encoding="utf-8"))["defaults"]
    names = [str(group) for entry in defaults if isinstance(entry, dict) for group in entry]
    return [name for name in names if (config_folder() / name).is_dir()]
