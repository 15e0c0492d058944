"""May two runs be compared? Only with the same gallery, queries, protocol and k, and else not.

A number from another gallery is another number, however alike the two look: a smaller gallery alone
makes every run better. So a comparison is refused, with the command that makes it possible.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Literal, get_args

from visual_search.reading import Identity, Summary

COMMAND = "python -m visual_search.evaluate"
Part = Literal["gallery", "queries", "protocol", "k"]
MUST_AGREE: tuple[Part, ...] = get_args(Part)


class NotComparableError(ValueError):
    """Runs were not measured on the same gallery and queries by the same protocol."""


def identity_of(summary: Summary) -> Identity:
    """Returns what `check_comparable` reads of a report's summary; empty for an older run.

    Example:
        >>> identity_of({"k": 5, "num_gallery": 9, "num_queries": 2})
        {}
        >>> identity_of({"k": 5, "num_gallery": 9, "num_queries": 2, "identity": {"data": "shop"}})
        {'data': 'shop', 'k': 5, 'num_gallery': 9, 'num_queries': 2}
    """
    identity = summary.get("identity")
    if not isinstance(identity, Mapping):
        return {}
    found: Identity = {**identity}
    for size in ("k", "num_gallery", "num_queries"):
        if size in summary:
            found[size] = summary[size]
    return found


def check_comparable(
    identities: Mapping[str, Identity], paths: Mapping[str, str] | None = None
) -> None:
    """Refuses runs that were not measured alike, with the command that brings them together.

    Gallery, queries, protocol and k have to agree. The message lists, for every run that differs
    from the largest set of runs that agree (the first of equally large ones), all that differs.

    Args:
        identities: Run -> `identity_of` its summary.
        paths: Run -> its folder, for the command; by default its name.

    Raises:
        NotComparableError: A run has no identity (an older one), or two runs differ.

    Example:
        >>> shop = {"gallery": "1a", "queries": "2b", "protocol": "3c", "protocol_name": "shop"}
        >>> check_comparable({"A": {**shop, "k": 5}, "B": {**shop, "k": 5}})
        >>> check_comparable({"A": {**shop, "k": 5}, "B": {**shop, "k": 10}}, {"B": "outputs/b"})
        Traceback (most recent call last):
        ...
        visual_search.retrieval.comparability.NotComparableError: run 'B' was not measured as 'A':
        k is 10, expected 5. Evaluate it alike:
            python -m visual_search.evaluate run=outputs/b protocol=shop protocol.k=5
    """
    paths = paths or {}
    older = [name for name, held in identities.items() if not set(MUST_AGREE) <= held.keys()]
    if older:
        commands = "".join(
            f"\n    {COMMAND} {_override('run', paths.get(name, name))}" for name in older
        )
        raise NotComparableError(
            f"run(s) {', '.join(map(repr, older))} do not say which gallery, queries and protocol "
            "they were measured with, since an older version evaluated them; expected an identity "
            f"in the summary. Evaluate again:{commands}"
        )
    keys = {name: tuple(held[part] for part in MUST_AGREE) for name, held in identities.items()}
    if len(set(keys.values())) < 2:
        return
    common = Counter(keys.values()).most_common(1)[0][0]
    first = next(name for name, key in keys.items() if key == common)
    lines = []
    for name, key in keys.items():
        if key != common:
            differs, overrides = _differences(identities[name], identities[first])
            command = " ".join([_override("run", paths.get(name, name)), *overrides])
            lines.append(
                f"run {name!r} was not measured as {first!r}:\n{'; '.join(differs)}. "
                f"Evaluate it alike:\n    {COMMAND} {command}"
            )
    raise NotComparableError("\n".join(lines))


def _differences(held: Identity, expected: Identity) -> tuple[list[str], list[str]]:
    """What differs in words, and the overrides that `COMMAND` needs."""
    words, overrides = [], []
    here, there = (one.get("data", "unknown") for one in (held, expected))
    named, wanted = (one.get("protocol_name", "unknown") for one in (held, expected))
    items: list[Part] = [part for part in MUST_AGREE[:2] if held[part] != expected[part]]
    other_protocol = held["protocol"] != expected["protocol"]
    if items and here != there:
        words.append(f"data is {here}, expected {there}")
    words += [_items(part, held, expected) for part in items]
    settings = _settings(held if named == wanted else {}, expected)
    asked_otherwise = other_protocol or (named == wanted and bool(settings))
    if items and here == there and not asked_otherwise:
        words.append(
            f"data {there} had other content or another split then: give the path and the split of "
            "the other run too"
        )
    if items and (here != there or not asked_otherwise):
        overrides.append(_override("data", there))
    if asked_otherwise or held["k"] != expected["k"]:
        overrides.append(_override("protocol", wanted))
    if asked_otherwise:
        overrides += [_override(f"protocol.{name}", value) for name, (_, value) in settings.items()]
    if asked_otherwise and named != wanted:
        words.append(f"the protocol is {named}, expected {wanted}")
    elif asked_otherwise:
        for name, (ours, theirs) in settings.items():
            words.append(
                f"the protocol's {name} is {in_override(ours)}, expected {in_override(theirs)}"
            )
        if not settings and held["k"] == expected["k"]:
            words.append(
                f"the protocol {wanted} has other rules ({_hashes('protocol', held, expected)})"
            )
    if held["k"] != expected["k"]:
        words.append(f"k is {held['k']}, expected {expected['k']}")
        overrides.append(_override("protocol.k", expected["k"]))
    return words, overrides


def _items(part: Part, held: Identity, expected: Identity) -> str:
    """How the galleries or the queries differ: by their number, or else by their hashes."""
    verb, noun = ("the gallery holds", "items") if part == "gallery" else ("it asks", "queries")
    size: Literal["num_gallery", "num_queries"] = (
        "num_gallery" if part == "gallery" else "num_queries"
    )
    here, there = held.get(size), expected.get(size)
    if here is not None and there is not None and here != there:
        return f"{verb} {here:,} {noun}, expected {there:,}"
    return f"{verb} other {noun} ({_hashes(part, held, expected)})"


def _hashes(part: Part, held: Identity, expected: Identity) -> str:
    return f"sha256 {str(held[part])[:10]}, expected {str(expected[part])[:10]}"


def _settings(held: Identity, expected: Identity) -> dict[str, tuple[object, object]]:
    """The protocol's settings that differ, k apart: dotted name -> (held, expected)."""
    ours, theirs = (flat(one.get("protocol_settings") or {}) for one in (held, expected))
    return {
        name: (ours.get(name), value)
        for name, value in theirs.items()
        if name != "k" and ours.get(name) != value
    }


def flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Returns nested settings by their dotted names.

    Example:
        >>> flat({"k": 5, "gallery": {"splits": ["train"]}})
        {'k': 5, 'gallery.splits': ['train']}
    """
    found: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def in_override(value: object) -> str:
    """Returns a setting as Hydra's command line writes it.

    Example:
        >>> in_override([0.5, None, True, "a b"])
        '[0.5,null,true,"a b"]'
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(in_override(part) for part in value)}]"
    is_word = isinstance(value, str) and value.lower() in ("null", "true", "false")
    if isinstance(value, str) and (is_word or not re.fullmatch(r"[\w./-]+", value, re.ASCII)):
        quoted = value.replace('"', '\\"')
        return f'"{quoted}"'
    return str(value)


def _override(name: str, value: object) -> str:
    """An override that both the shell and Hydra read as this value."""
    return shlex.quote(f"{name}={in_override(value)}")
