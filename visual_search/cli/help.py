"""What ``--help`` of a command says: its groups, and every key with its value and what it is for.

Hydra's own help copies its config repository once an option, and knows no explanations. Those are
here what the first of these says of a key: the comment beside it in the YAML of the chosen options,
the docstring of its schema, that of the builder which takes it.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.cli.explain import GLOBAL_GROUPS, groups_of
from visual_search.cli.sources import docstrings, entries
from visual_search.config.builders import config_folders
from visual_search.config.schemas import SCHEMAS, parts_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

MIN_WIDTH, MAX_WIDTH = 60, 120  # columns


def help_text(command: str, config: DictConfig, width: int | None = None) -> str:
    """Returns the help of a command.

    Args:
        command: Its groups and its schema are shown.
        config: As composed from what stands beside ``--help``, with Hydra's own node.
        width: Columns; by default those of the terminal, between 60 and 120.
    """
    from omegaconf import OmegaConf

    if width is None:
        width = min(max(shutil.get_terminal_size().columns, MIN_WIDTH), MAX_WIDTH)
    folders = _folders(config)
    choices = config.hydra.runtime.choices
    lines = [config.hydra.help.header, ""]
    groups = groups_of(command)
    if groups:
        lines += ["== Groups: choose an option with group=option; [chosen] ==", ""]
        for group in groups:
            options = [
                f"[{one}]" if one == choices.get(group) else one for one in _options(folders, group)
            ]
            lines += textwrap.wrap(
                f"{group}: {', '.join(options)}",
                width,
                subsequent_indent="  ",
                break_on_hyphens=False,
            )
        lines.append("")
    lines += ["== Config: set a key with key=value; of a part with part.key=value ==", ""]
    explained = explanations(command, config)
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    settings = {str(key): value for key, value in content.items() if key != "hydra"}
    for left, text in _entries(settings, explained):
        lines += _beside(left, text, width)
    multirun = " Several jobs: -m." if "sweep" in groups else ""
    lines += [
        "",
        config.hydra.help.footer.rstrip(),
        "",
        f"Hydra's own options: --hydra-help.{multirun} Show the composed config: --cfg job.",
    ]
    return "\n".join(lines)


def explanations(command: str, config: DictConfig) -> dict[str, str]:
    """Returns what every key is for, by its dotted name.

    Args:
        command: Its schema is asked.
        config: With Hydra's own node.
    """
    chosen = {
        str(group): str(option)
        for group, option in config.hydra.runtime.choices.items()
        if option is not None and not str(group).startswith("hydra/")
    }
    folders = _folders(config)
    found: dict[str, str] = {}
    for group in [group for group in chosen if group not in GLOBAL_GROUPS]:
        for text in _texts(folders, group, chosen[group]):
            found = {f"{group}.{key}": said for key, said in _comments(text)} | found
            if purpose := _purpose(text):
                found.setdefault(f"{group}._target_", purpose)
    for key, text in _of_schema(SCHEMAS[command]):
        found.setdefault(key, text)
    for key, target in _targets(config):
        said = docstrings(target)
        found.setdefault(f"{key}._target_", said[0].partition("\n")[0] if said else "")
        for one in said:
            found = {f"{key}.{name}": text for name, text in entries(one).items()} | found
        # Of a node below its group's nobody says what it is, but what is built there says so.
        found.setdefault(key, found[f"{key}._target_"])
    for group in [group for group in chosen if group in GLOBAL_GROUPS]:
        for text in _texts(folders, group, chosen[group]):
            found = dict(_comments(text)) | found
    return {key: _said(text) for key, text in found.items() if text}


def _said(text: str) -> str:
    """Returns an explanation as it stands beside a key: YAML's words, no sentence."""
    for word, yaml in (("None", "null"), ("True", "true"), ("False", "false")):
        text = re.sub(rf"\b{word}\b", yaml, text)
    text = text if text.endswith("...") else text.rstrip(".")
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _folders(config: DictConfig) -> list[Path]:
    """Returns where options are looked for: the package's, plug-ins', then the user's."""
    own = [str(place).removeprefix("file://") for place in config.hydra.searchpath or ()]
    return [*config_folders(), *map(Path, own)]


def _options(folders: list[Path], group: str) -> list[str]:
    found = {
        path.relative_to(folder / group).with_suffix("").as_posix()
        for folder in folders
        for path in (folder / group).rglob("*.yaml")
    }
    return sorted(found)


def _texts(folders: list[Path], group: str, option: str) -> Iterator[str]:
    """Returns the text of an option's file, then of those of its group that it builds on."""
    for folder in folders:
        path = folder / group / f"{option}.yaml"
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            yield text
            for base in re.findall(r"^ *- (?!_self_)([\w/-]+) *(?:#.*)?$", text, re.MULTILINE):
                yield from _texts(folders, group, base)
            return


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """Returns the comments of a YAML file that stand beside keys, with the dotted keys."""
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = re.match(r"( *)([\w-]+):(?=\s|$)((?:\"[^\"]*\"|'[^']*'|(?<!\s)#|[^\"'#])*)", line)
        if found:
            above = [one for one in above if one[0] < len(found[1])] + [(len(found[1]), found[2])]
            comment = line[found.end() :].lstrip("# ")
            if comment:
                yield ".".join(name for _, name in above), comment


def _purpose(text: str) -> str:
    """Returns the first sentence of the comment that a file begins with."""
    head = re.match(r"(?:# .*\n)*", text)
    lines = [line.removeprefix("# ") for line in head[0].splitlines()] if head else []
    return re.split(r"(?<=\w\.)\s|(?<=\w\.)$", " ".join(lines))[0]


def _of_schema(schema: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    for kind in reversed(schema.__mro__):
        for name, text in entries(kind.__doc__ or "").items():
            yield f"{prefix}{name}", text
    for name, part in parts_of(schema).items():
        yield from _of_schema(part, f"{prefix}{name}.")


def _targets(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Returns the nodes that name a builder, and which."""
    from omegaconf import DictConfig

    for key in map(str, node):
        child = node._get_node(key)
        if key != "hydra" and isinstance(child, DictConfig) and not child._is_none():
            name = f"{prefix}{key}"
            if "_target_" in child:
                yield name, str(child._get_node("_target_"))
            yield from _targets(child, f"{name}.")


def _entries(
    content: Mapping[str, object], explained: Mapping[str, str], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Returns every key with its value as YAML has them, and what it is for."""
    indent = "  " * prefix.count(".")
    for key, value in content.items():
        text = explained.get(f"{prefix}{key}", "")
        if key == "_target_" and text == explained.get(prefix.removesuffix(".")):
            text = ""
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:", text
            yield from _entries(value, explained, f"{prefix}{key}.")
        else:
            yield f"{indent}{key}: {_as_yaml(value)}", text


def _as_yaml(value: object) -> str:
    import yaml

    if isinstance(value, str) and re.fullmatch(r"[a-z_/][a-z0-9_./]*", value) and len(value) > 5:
        return value
    text: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=float("inf")
    )
    return text.removesuffix("...\n").strip()


def _beside(left: str, text: str, width: int) -> list[str]:
    """Returns a key and what it is for, in two columns; a long key has a line of its own."""
    column = min(40, width * 9 // 20)
    said = textwrap.wrap(text, width - column - 2, break_on_hyphens=False)
    rows = [f"{' ' * column}# {line}" for line in said]
    if rows and len(left) < column:
        rows[0] = left.ljust(column) + rows[0].lstrip(" ")
        return rows
    return [left, *rows]
