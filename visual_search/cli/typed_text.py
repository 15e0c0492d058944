"""What is typed for a key of text is that text: the door through which overrides reach Hydra.

Hydra reads ``item=1.10`` as the number 1.1, ``TRUE`` as a boolean, ``Preis (€)`` not at all. Which
keys hold text the schemas say, and the signatures of the builders; an override of one of them is
quoted here wherever Hydra would read something else than what was typed. The grammar of a value:

- one text, as it is typed, blanks, signs and brackets included; in quotes of its own (``"..."``)
  where it means something otherwise: ``null`` (nothing is given), ``false`` (of a key that may be
  turned off), or a comma after ``-m`` (jobs);
- ``[one,two]``, where a key takes several; ``{column: text, other: [one,two]}``, where it takes
  columns. A comma, or a colon in a column's name, needs quotes there.

``${key}`` means another key's value, but in keys of items: there it is text as well.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visual_search.cli.sources import arguments
from visual_search.config.builders import GROUPS, ConfigError, builders
from visual_search.config.schemas import SCHEMAS

if TYPE_CHECKING:
    from omegaconf import DictConfig

_TEXT = ("str", "Path", "os.PathLike[str]")
_TEXTS = ("list[str]", "Sequence[str]", "dict[str, list[str]]")
_MAPPINGS = ("dict[str, str]", "dict[str, list[str]]")
_QUOTED = re.compile(
    r"""(["'])(?:(?:\\\\)*|.*?[^\\](?:\\\\)*)\1""", re.DOTALL
)  # as Hydra's grammar
_NAME = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z_][a-z0-9_-]*", re.IGNORECASE | re.ASCII)
_SWEEP = re.compile(r"(choice|glob|interval|range|shuffle|sort|tag)\s*\((.*)\)", re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """What a key of text takes.

    Attributes:
        text: One text.
        texts: A list of texts.
        mapping: Columns with a text each, or with several where it takes texts.
        off: ``false``, where that is another answer than a text.
        literal: ``${...}`` is no reference.
    """

    text: bool = False
    texts: bool = False
    mapping: bool = False
    off: bool = False
    literal: bool = False

    def __or__(self, other: Kind) -> Kind:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Kind(*(one or two for one, two in pairs))


def as_typed(command: str, arguments: Sequence[str]) -> list[str]:
    r"""Returns the arguments with those overrides quoted of which Hydra would make something else.

    Args:
        command: Its schema says which keys hold text.
        arguments: As they stand behind the command; options are left as they are.

    Raises:
        ConfigError: A list, or columns with texts, cannot be read; or a text is no Unicode.

    Example:
        >>> as_typed("search", ["item=1.10", "k=5", "where={Preis (€): 19.90}"])
        ['item="1.10"', 'k=5', 'where="{\\"Preis (€)\\": \\"19.90\\"}"']
        >>> as_typed("index", ["item=[7E5,shoe-1]", "bundle=shop", "category=null"])
        ['item=["7E5","shoe-1"]', 'bundle=shop', 'category=null']
    """
    multirun = any(argument in ("-m", "--multirun") for argument in arguments)
    return [_as_typed(command, argument, multirun) for argument in arguments]


def _as_typed(command: str, override: str, multirun: bool) -> str:
    start, equals, value = override.partition("=")
    key = start.lstrip("+")
    kind = kind_of(command, key) if equals else None
    if kind is None:
        return override
    try:
        override.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{key}={value!r} is not UTF-8; expected text; rename the file, or set a UTF-8 locale"
        ) from error
    try:
        rewritten = f"{start}={_value(value, kind, multirun)}"
    except ValueError as error:
        raise ConfigError(f"{override}: {error}") from error
    return override if _reads(override) == _reads(rewritten) else rewritten


def _reads(override: str) -> object:
    """Returns what Hydra reads, with the types of it; a value of its own where it reads nothing."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString
    from hydra.errors import HydraException

    def plain(value: object) -> object:
        if isinstance(value, ChoiceSweep):
            return ("jobs", plain(value.list))
        if isinstance(value, QuotedString):
            return plain(value.text)
        if isinstance(value, list):
            return [plain(one) for one in value]
        if isinstance(value, dict):
            return {plain(name): plain(one) for name, one in value.items()}
        return type(value), str(value)

    try:
        return plain(OverridesParser.create().parse_override(override)._value)
    except HydraException:
        return object()


def _value(value: str, kind: Kind, multirun: bool) -> str:
    if not multirun:
        lists = _parts(value, "[") if kind.texts and not kind.mapping else []
        if len(lists) > 1 and all(part.strip()[:1] + part.strip()[-1:] == "[]" for part in lists):
            raise ValueError("expected one list, or -m in front, for a job with each")
        return _element(value, kind)
    sweep = _SWEEP.fullmatch(value.strip())
    if sweep and sweep[1] != "choice":
        return value
    typed = sweep[2] if sweep else value
    opening = "{" if kind.mapping else "[" if kind.texts else ""
    jobs = ",".join(_element(part, kind) for part in _parts(typed, opening))
    return f"choice({jobs})" if sweep else jobs


def _element(raw: str, kind: Kind) -> str:
    """Returns the value of one job so that Hydra reads the text that was typed.

    Raises:
        ValueError: It is no list, or no columns, though it has to be; says what was expected.
    """
    bare = raw.strip()
    if bare == "null" or (bare == "false" and kind.off):
        return bare
    if kind.mapping:
        return _quote_mapping(_mapping(bare, kind), kind)
    if kind.texts and bare[:1] + bare[-1:] == "[]":
        return f"[{','.join(_quote(text, kind) for text in _list(bare))}]"
    return _quote(_text(raw), kind)


def _quote(text: str, kind: Kind) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    # OmegaConf looks for references in quotes, too.
    is_text = kind.literal or not _holds_references(text)
    return QuotedString(_escaped(text) if is_text else text, Quote.double).with_quotes()


def _holds_references(text: str) -> bool:
    """Returns whether every ``${`` of a text opens what OmegaConf reads as a reference."""
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    try:
        parse(text)
    except GrammarParseError:
        return False
    return True


def _escaped(text: str) -> str:
    """Returns the text of which OmegaConf makes this one, and no reference."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)


def _quote_mapping(columns: Mapping[str, str | Sequence[str]], kind: Kind) -> str:
    if not all(_NAME.fullmatch(name) for name in columns):
        # Hydra's grammar has no such names; `unpacked` makes columns with texts of it again.
        return _quote(json.dumps(columns, ensure_ascii=False), kind)
    pairs = []
    for name, texts in columns.items():
        several = [] if isinstance(texts, str) else [_quote(text, kind) for text in texts]
        value = _quote(texts, kind) if isinstance(texts, str) else f"[{','.join(several)}]"
        pairs.append(f"{name}: {value}")
    return f"{{{', '.join(pairs)}}}"


def _text(raw: str) -> str:
    """Returns a text as it stands, or what stands in the quotes that are around all of it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    bare = raw.strip()
    quoted = _QUOTED.match(bare)
    if quoted is None or quoted.end() < len(bare):
        return raw
    return str(OverridesParser.create().parse_rule(bare, "primitive").text)


def _list(bare: str) -> list[str]:
    inner = bare[1:-1]
    parts = [part.strip() for part in _parts(inner)] if inner.strip() else []
    if "" in parts:
        raise ValueError(
            f'{bare} has an empty place; expected a text in each; drop a comma, or write ""'
        )
    return [_text(part) for part in parts]


def _mapping(bare: str, kind: Kind) -> dict[str, str | list[str]]:
    if bare[:1] + bare[-1:] != "{}":
        raise ValueError("expected columns with their texts, as in '{colour: Red, size: 38}'")
    inner = bare[1:-1]
    found: dict[str, str | list[str]] = {}
    for part in _parts(inner, "[" if kind.texts else "") if inner.strip() else []:
        quoted = _QUOTED.match(part.lstrip())
        name = quoted[0] if quoted else part.lstrip().partition(":")[0]
        rest = part.lstrip()[len(name) :].lstrip()
        column = _text(name.strip())
        if rest[:1] != ":" or not column:
            raise ValueError(
                f"{part.strip()!r} is no column with a text; expected {{column: text}}; a comma, "
                'or a colon in a name, needs quotes, as in {size: "38,5"}'
            )
        if column in found:
            raise ValueError(f"{column!r} stands twice; expected each column once: drop one")
        text = rest[1:].strip()
        is_list = kind.texts and text[:1] + text[-1:] == "[]"
        found[column] = _list(text) if is_list else _text(text)
    return found


def _parts(text: str, opening: str = "") -> list[str]:
    """Returns what stands between the commas that are in no quotes and no brackets of their own.

    Args:
        text: What was typed.
        opening: ``[`` or ``{`` where a part may begin so, and holds commas until it is closed.
    """
    closing = {"[": "]", "{": "}"}.get(opening, "")
    parts, start, at = [], 0, 0
    begins, is_open = True, False
    while at < len(text):
        sign = text[at]
        quoted = _QUOTED.match(text, at) if begins else None
        if quoted and re.match(r"\s*([,:\]}]|$)", text[quoted.end() :]):
            at, begins = quoted.end(), False
            continue
        if sign == opening and begins:
            is_open = True
        elif sign == closing:
            is_open = begins = False
        elif sign == "," and not is_open:
            parts.append(text[start:at])
            start, begins = at + 1, True
        elif not (sign.isspace() and begins):
            begins = sign in ",:"
        at += 1
    return [*parts, text[start:]]


@functools.cache
def kind_of(command: str, key: str) -> Kind | None:
    """Returns what a key takes, if that is text; None where it is no text, or no key.

    Args:
        command: Its schema is asked.
        key: With dots, without the signs of an override.

    Example:
        >>> kind_of("search", "k"), kind_of("train", "data.category").texts
        (None, False)
    """
    schema: Any = SCHEMAS[command]
    names = key.split(".")
    for position, name in enumerate(names):
        field = next((one for one in dataclasses.fields(schema) if one.name == name), None)
        if field is None:
            return None
        rest = names[position + 1 :]
        if not rest:
            return _kind(field.metadata.get("typed", field.type), "typed" in field.metadata)
        of_columns = _kind(field.metadata.get("typed"))
        if of_columns is not None and of_columns.mapping:
            column = ".".join(rest)
            raise ConfigError(
                f"{key} is no setting; expected the columns of {name} in braces: "
                f"'{name}={{{column}: ...}}'"
            )
        if name in GROUPS and str(field.type).startswith("Node"):
            return _kind_of_argument(name, rest[-1])
        hints = typing.get_type_hints(schema)[name]
        nested = [one for one in (hints, *typing.get_args(hints)) if dataclasses.is_dataclass(one)]
        if not nested:
            return None
        schema = nested[0]
    return None


def _kind(annotation: object, literal: bool = False) -> Kind | None:
    """Returns the kind of what a source file says of a type; None where that is not only text."""
    parts = str(annotation).split(" | ")
    kind = Kind(
        text=any(part in _TEXT for part in parts),
        texts=any(part in _TEXTS for part in parts),
        mapping=any(part in _MAPPINGS for part in parts),
        off="Literal[False]" in parts,
        literal=literal,
    )
    known = {*_TEXT, *_TEXTS, *_MAPPINGS, "Literal[False]", "None"}
    is_text = (kind.text or kind.texts or kind.mapping) and known.issuperset(parts)
    return kind if is_text else None


@functools.cache
def _kind_of_argument(group: str, name: str) -> Kind | None:
    """Returns what the builders of a group take as an argument of this name, all kinds together."""
    kinds = [
        _kind(ast.unparse(argument.annotation))
        for target in builders(group)
        for argument in arguments(target)
        if argument.arg == name and argument.annotation is not None
    ]
    texts = [kind for kind in kinds if kind is not None]
    return functools.reduce(Kind.__or__, texts) if texts else None


def unpacked(command: str, config: DictConfig) -> DictConfig:
    """Returns the composed config with its columns and texts as mappings, where it has some."""
    from omegaconf import OmegaConf

    for field in dataclasses.fields(SCHEMAS[command]):
        kind = _kind(field.metadata.get("typed"))
        packed = config.get(field.name) if kind is not None and kind.mapping else None
        if isinstance(packed, str):
            columns = {
                name: [_escaped(text) for text in one] if isinstance(one, list) else _escaped(one)
                for name, one in json.loads(packed).items()
            }
            OmegaConf.update(config, field.name, columns, force_add=True)
    return config
