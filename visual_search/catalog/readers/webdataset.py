"""WebDataset: tars in which the files of a sample share a name, ``0007.jpg`` and ``0007.json``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from visual_search import builder
from visual_search.catalog.catalog import REQUIRED_COLUMNS, Catalog, Choice, RefusedItem
from visual_search.catalog.readers import OnBadItem, check_on_bad_item
from visual_search.catalog.readers.listings import (
    Items,
    left_out_choice,
    split_choice,
    split_of_name,
    split_of_word,
    taken_choice,
)
from visual_search.catalog.readers.picture_names import is_clutter
from visual_search.catalog.readers.products import PICTURE_SUFFIXES
from visual_search.catalog.readers.sources import files_below, is_file, local_files, stem_of
from visual_search.catalog.readers.tar_source import Tar, TarSource, list_tar
from visual_search.storage.uris import Place, place_of

MAX_TEXT_BYTES = 2**20  # of what stands beside a picture
MAX_ATTRIBUTES = 1000  # without a limit, samples with a thousand other fields each fill the memory

# webdataset/tariterators.py, base_plus_ext: the extension begins at the first dot of the file name
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)


@dataclass
class _Sample:
    """The files of one sample: member names by their extension, in small letters."""

    members: dict[str, str] = field(default_factory=dict)
    described: dict[str, object] = field(default_factory=dict)  # what its json says


@builder("data")
def webdataset(
    path: str | os.PathLike[str],
    category: str = "cls",
    image: str | None = None,
    item_id: str | None = None,
    group: str | None = None,
    split: str | Literal[False] | None = None,
    attributes: Sequence[str] | None = None,
    on_bad_item: OnBadItem = "error",
    name: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Catalog:
    """Returns the catalogue of WebDataset tars, whose pictures are read where they lie.

    ``category``, ``item_id``, ``group`` and ``split`` each name what stands beside the picture: an
    extension, as ``cls`` or ``txt``, whose text it is; or a field of the json, as ``json.label``.

    Args:
        path: A ``.tar``, or a folder with any number of them at any depth; not compressed.
        category: What holds the category.
        image: The extension of the pictures, as ``jpg`` or ``front.jpg``; None takes the one
            picture of each sample.
        item_id: What holds the id; None takes the tar's name and the sample's, as
            ``train-0000.tar/0007``.
        group: What holds that which must not be split; None makes each item a group of its own.
        split: What holds the split; None takes it from the names of the tars and folders
            (``train``, ``val``, ``test``), where these say one, and says so; False takes none.
        attributes: Fields of the json to keep; None keeps every field that holds one plain value
            and has no name which the catalogue uses itself.
        on_bad_item: ``error`` stops when a sample cannot be an item, ``skip`` leaves it out and
            keeps it in ``refused``.
        name: Name of the catalogue; the stem of ``path`` by default.
        on_progress: Called with how many tars of how many are copied from object storage.

    Raises:
        FileNotFoundError: Nothing is at ``path``, or it is a folder without a tar.
        BadItemsError: There are bad samples or members and ``on_bad_item`` is ``error``: no picture
            or several, one over 64 MiB, an empty category, an id that is empty or stands twice, an
            unknown split, a text that is no UTF-8 or over 1 MiB, a json that is none; links, unsafe
            names, a name twice in a tar.
        ValueError: A tar is compressed, damaged or cut off; ``category`` and so on name neither an
            extension nor a field of the json; there are over 1,000 attributes, or one has a name of
            the catalogue's; no sample is good; or ``on_bad_item`` is another word.
    """
    check_on_bad_item(on_bad_item)
    paths = local_files(tar_paths(place_of(path)), on_progress)
    tars = {inner: list_tar(file) for inner, file in paths.items()}
    items = samples_of(
        tars,
        category=category,
        image=image,
        item_id=item_id,
        group=group,
        split=split,
        attributes=attributes,
    )
    return items.conclude(name or stem_of(path), on_bad_item=on_bad_item, origin=str(path))


def samples_of(
    tars: Mapping[str, Tar],
    *,
    category: str,
    image: str | None,
    item_id: str | None,
    group: str | None,
    split: str | Literal[False] | None,
    attributes: Sequence[str] | None,
) -> Items:
    """Returns the items of some tars, by the names that these have below the data's folder.

    The others are the arguments of `webdataset`.

    Raises:
        ValueError: An argument names neither an extension nor a field of the json, or there are
            too many attributes.
    """
    wanted = {"category": category, "item_id": item_id, "group": group, "split": split or None}
    for argument, where in wanted.items():
        if where is not None and (not where or (where.startswith("json") and where[4:5] != ".")):
            raise ValueError(
                f"data.{argument} is {where!r}; expected an extension, as 'cls', or a field of the "
                "json, as 'json.label'"
            )
    refused: list[RefusedItem] = []
    samples: list[tuple[str, str, _Sample]] = []
    for inner, tar in tars.items():
        refused += [
            RefusedItem(f"{inner}/{member}", f"{inner}/{member}", reason)
            for member, reason in tar.refused
        ]
        samples += [(inner, key, sample) for key, sample in _samples(tar).items()]
    reasons = [_describe(tars[inner], sample) for inner, _, sample in samples]
    choices: tuple[Choice, ...] = ()
    if attributes is None:
        attributes, choices = _plain_fields(
            [sample for *_, sample in samples], list(wanted.values())
        )

    file_splits = {inner: split_of_name(inner) if split is None else "" for inner in tars}
    choices += split_choice(file_splits)
    items = Items(TarSource(tars), list(attributes), choices, refused)
    for (inner, key, sample), reason in zip(samples, reasons, strict=True):
        place = f"{inner}/{key}"
        found, said = "", dict.fromkeys(wanted, "")
        try:
            if reason:
                raise ValueError(reason)
            found = _picture(sample, image)
            for argument, where in wanted.items():
                if where is not None:
                    said[argument] = _value(tars[inner], sample, where)
            if not split:
                said["split"] = file_splits[inner]
        except ValueError as error:
            items.refuse(place, said["item_id"] or place, f"{inner}/{found or key}", str(error))
            continue
        items.add(
            place,
            item_id=place if item_id is None else said["item_id"],
            image=f"{inner}/{found}",
            category=said["category"],
            group=said["group"],
            split=split_of_word(said["split"]),
            attributes=[_text(sample.described.get(column)) for column in attributes],
        )
    return items


def tar_paths(path: Place) -> dict[str, Place]:
    """Returns the tars by their name below ``path``, sorted."""
    if is_file(path):
        # a name with another suffix gets this one: it ends the tar's part of a picture's name
        return {path.name.removesuffix(".tar") + ".tar": path}
    if isinstance(path, Path) and not path.exists():
        raise FileNotFoundError(f"nothing at {path.absolute()}; give a tar or a folder with tars")
    found = files_below(path, ".tar")
    if not found:
        raise FileNotFoundError(f"no .tar in {path}; give the folder with them, not compressed")
    return found


def _samples(tar: Tar) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    for member in tar.members:
        found = _NAME.fullmatch(member)
        if found is not None and not is_clutter(member):
            sample = samples.setdefault(found[1], _Sample())
            sample.members.setdefault(found[2].lower(), member)
    return samples


def _describe(tar: Tar, sample: _Sample) -> str:
    """Reads the sample's json; gives the reason why it cannot be read, or nothing."""
    if "json" not in sample.members:
        return ""
    try:
        described = json.loads(_read(tar, sample.members["json"]))
    except (ValueError, RecursionError) as error:
        return f"its json cannot be read: {error}"
    if not isinstance(described, dict):
        return f"its json holds a {type(described).__name__}; expected an object with fields"
    sample.described = described
    return ""


def _read(tar: Tar, member: str) -> str:
    try:
        return tar.read(member, MAX_TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{member!r} is not UTF-8 ({error.reason}); write it as UTF-8") from error


def _plain_fields(
    samples: Sequence[_Sample], used: Sequence[str | None]
) -> tuple[list[str], tuple[Choice, ...]]:
    """Returns the fields of all samples that hold plain values, in the order of their appearance.

    Returns:
        Them, and what to say of the others.
    """
    plain: dict[str, bool] = {}
    for sample in samples:
        for name, value in sample.described.items():
            plain[name] = plain.get(name, True) and not isinstance(value, list | dict)
    steps = [where.split(".")[1] for where in used if where and where.startswith("json.")]
    free = [name for name in plain if name not in steps]
    kept = [name for name in free if plain[name] and name not in REQUIRED_COLUMNS]
    if len(kept) > MAX_ATTRIBUTES:
        raise ValueError(
            f"the samples' json has {len(kept)} different fields; expected at most "
            f"{MAX_ATTRIBUTES}: name those to keep by data.attributes"
        )
    nested = [name for name in free if not plain[name]]
    choices = left_out_choice(nested, "they hold lists or objects")
    return kept, choices + taken_choice(name for name in free if plain[name])


def _picture(sample: _Sample, image: str | None) -> str:
    """Returns the member that is the sample's picture; ValueError where there is not one."""
    if image is not None:
        if image.lower() not in sample.members:
            raise ValueError(f"has no .{image}; it has {sorted(sample.members)}")
        return sample.members[image.lower()]
    pictures = [name for name in sample.members if f".{name}" in PICTURE_SUFFIXES]
    if len(pictures) != 1:
        raise ValueError(
            f"has {len(pictures)} pictures among {sorted(sample.members)}; expected one: name the "
            "extension by data.image"
        )
    return sample.members[pictures[0]]


def _value(tar: Tar, sample: _Sample, where: str) -> str:
    """Returns the text of an extension or of a field of the json, nothing where there is none."""
    if not where.startswith("json."):
        member = sample.members.get(where.lower())
        return "" if member is None else _read(tar, member).strip()
    value: object = sample.described
    for step in where.removeprefix("json.").split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, list | dict):
        raise ValueError(f"{where} is a {type(value).__name__}; expected one plain value")
    return _text(value)


def _text(value: object) -> str:
    return "" if value is None or isinstance(value, list | dict) else str(value)
