"""Which runs differ in the seed alone, and by which settings the others are told apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visual_search.runs.code import UNKNOWN_CODE, short_code
from visual_search.runs.identity import result_settings
from visual_search.runs.run import Run, run_root

SEED = "seed"
MOST_SHOWN = 5  # settings in a name: with more of them nobody finds the one that matters
TARGET = "._target_"


@dataclass(frozen=True)
class Variant:
    """What a run was made by.

    Attributes:
        settings: What can change its result, by dotted names, but for the seed; None of what was
            not trained here, such as embeddings from outside.
        seed: Of the training.
    """

    settings: Mapping[str, object] | None
    seed: int

    @property
    def key(self) -> str | None:
        """The same for runs that differ in the seed alone; None where nothing is alike."""
        return None if self.settings is None else json.dumps(self.settings, sort_keys=True)


def variant_of(run: Run) -> Variant:
    """Returns by what a run, or an evaluation of one, was made.

    Raises:
        FileNotFoundError: It has no config.
        DamagedFileError: The config or a status cannot be read.
    """
    from visual_search.retrieval.comparability import flat

    settings = run.settings()
    if "_target_" not in settings.model:
        return Variant(None, settings.seed)
    trained = Run(run_root(run.folder))
    if trained.folder != run.folder:  # a measurement reads in batches of its own
        settings.loader = trained.settings().loader
    if "devices" in settings.trainer:  # -1 asks for all of the machine that trained
        settings.trainer["devices"] = trained.summary().get("num_devices") or 1
        settings.trainer["num_nodes"] = 1  # these are of all nodes
    found = flat(result_settings(settings))
    found.pop(SEED)
    status = trained.status()
    data = str(status.get("catalog_fingerprint") or "")
    code = short_code(status["code"]) if "code" in status else UNKNOWN_CODE
    return Variant({**found, "catalog": data[:10], "code": code}, settings.seed)


def seed_groups(variants: Sequence[Variant]) -> list[list[int]]:
    """Returns the places of runs that differ in the seed alone, by seed; each place stands once.

    A seed that comes again (a copy of a run) is not another seed: it stands apart.

    >>> runs = [Variant({"a": 1}, 2), Variant({"a": 1}, 1), Variant({"a": 5}, 1)]
    >>> seed_groups([*runs, runs[0], Variant(None, 1), Variant(None, 2)])
    [[1, 0], [2], [3], [4], [5]]
    """
    groups: dict[Hashable, list[int]] = {}
    for place, variant in enumerate(variants):
        key: Hashable = variant.key if variant.key is not None else place
        held = groups.setdefault(key, [])
        if any(variants[other].seed == variant.seed for other in held):
            groups[place] = [place]
        else:
            held.append(place)
    return [sorted(held, key=lambda place: variants[place].seed) for held in groups.values()]


def settings_apart(settings: Sequence[Mapping[str, object]]) -> list[str]:
    """Returns for each of several runs the settings in which it is not as all, as one types them.

    A part that is not the same is named, and of its own settings those that differ where it is. Of
    more than `MOST_SHOWN` those stay in which the run is least like the others.

    >>> settings_apart([{"lr": 0.1, "size": 8}, {"lr": 0.2, "size": 8}])
    ['lr=0.1', 'lr=0.2']
    >>> a = {"objective._target_": "x.mixed", "objective.share": 0.5}
    >>> settings_apart([a, {**a, "objective.share": 0.7}, {"objective._target_": "x.ssim"}])
    ['objective=mixed objective.share=0.5', 'objective=mixed objective.share=0.7', 'objective=ssim']
    """
    from visual_search.retrieval.comparability import in_override

    keys = sorted({key for held in settings for key in held})
    texts = [{key: in_override(held.get(key)) for key in keys} for held in settings]
    differ = [key for key in keys if len({text[key] for text in texts}) > 1]
    nodes = [key.removesuffix(TARGET) for key in differ if key.endswith(TARGET)]
    found = []
    for held, text in zip(settings, texts, strict=True):
        parts: dict[str, str] = {}
        for key in differ:
            node = next((name for name in nodes if key == name or key.startswith(f"{name}.")), None)
            if node is None:
                parts[key] = f"{key}={text[key]}"
                continue
            target = f"{node}{TARGET}"
            if key == target:
                parts[key] = f"{node}={text[key].rpartition('.')[2]}"
                continue
            beside = {other[key] for other in texts if other[target] == text[target]}
            if key in held and len(beside) > 1:
                parts[key] = f"{key}={text[key]}"
        if len(parts) > MOST_SHOWN:
            like = {key: Counter(one[key] for one in texts)[text[key]] for key in parts}
            kept = sorted(parts, key=lambda key: (like[key], not key.endswith(TARGET), key))
            parts = {key: parts[key] for key in parts if key in kept[:MOST_SHOWN]}
        order = sorted(parts, key=lambda key: (not key.endswith(TARGET), key))
        found.append(" ".join(parts[key] for key in order))
    return found


def told_apart(runs: Sequence[tuple[str, Variant, Path]]) -> list[str]:
    """Returns the settings by which each run, of a name, is told from the others of that name.

    What no setting tells apart has its folder's name.

    Args:
        runs: Name, variant and folder of each; of runs that differ in the seed alone one.
    """
    found = [""] * len(runs)
    for name in dict.fromkeys(name for name, _, _ in runs):
        places = [place for place, one in enumerate(runs) if one[0] == name]
        texts = settings_apart([runs[place][1].settings or {} for place in places])
        for place, text in zip(places, texts, strict=True):
            alike = texts.count(text) > 1
            found[place] = f"{text} {runs[place][2].name}".strip() if alike else text
    return found
