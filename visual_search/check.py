"""Checks a catalogue before anybody trains on it: rows, pictures, copies, leaks, categories.

``python -m visual_search.check data=folder data.root=PATH``; ``--help`` lists what can be set.
Its exit status is 1 where it finds an error, so that it can guard a pipeline.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError, bind, build, one_of
from visual_search.config.schemas import CheckSchema
from visual_search.reports.check_tables import FINDINGS_FILE, REPORT_FILE, Checked, numbers_of
from visual_search.wording import listed, many

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.catalog.catalog import Catalog
    from visual_search.catalog.checks import Finding, Severity
    from visual_search.retrieval.protocol import Protocol, Selection
    from visual_search.views.html_check import CheckPage, ContactSheet
QUERY_SPLIT = "test"
MAX_SHEETS = 100  # where labels are products there are thousands, and nobody looks at so many
_BAD_ITEMS = ("refused_rows", "broken_pictures", "left_out")
_LEAKS = ("leak_pixels", "leak_sides")  # those of groups that are given are to be mended
_SHARED_WITH_TRAIN = ("data", "split", "protocol", "pictures", "outputs")
_SHARED_WITH_EVALUATE = ("data", "protocol")
# Kinds of findings whose items are rows without a picture, or names of something else.
_WITHOUT_PICTURES = ("attributes", "broken", "categories", "choices", "few", "groups", "imbalance",
                     "large", "leak_groups_given", "left_out", "refused")  # fmt: skip


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("check", check_command)


def check_command(settings: CheckSchema) -> None:
    """Checks the catalogue that the composed config names, prints and writes what it finds.

    Raises:
        SystemExit: With status 1, where there is an error; warnings and notes end with 0.
    """
    from visual_search.reports.check_tables import print_check

    checked = check_data(settings)
    print_check(checked)
    if checked.num("error"):
        raise SystemExit(1)


def check_data(settings: CheckSchema) -> Checked:
    """Checks the catalogue that a config names, and writes ``report.html`` and ``findings.json``.

    Bad rows and broken pictures are all named, whatever ``data.on_bad_item`` says; that decides
    whether they are errors.

    Args:
        settings: The composed ``conf/check.yaml``.

    Raises:
        ConfigError: No data is named, or a setting is wrong.
        ValueError: The data cannot be read at all, or none of its pictures.
    """
    from visual_search.catalog import checks, picture_checks
    from visual_search.catalog.images import Fit
    from visual_search.catalog.picture_facts import picture_facts
    from visual_search.runs.catalogs import prepare
    from visual_search.runs.parts import new_protocol
    from visual_search.views.progress import progress_bar

    if "_target_" not in settings.data:
        raise ConfigError(
            "no data is named; expected data=OPTION: choose one of conf/data/, such as data=folder "
            "data.root=my_pictures (--help lists them)"
        )
    if settings.sheet_items < 1:
        raise ConfigError(
            f"sheet_items={settings.sheet_items}; expected at least 1 picture a category: set "
            "sheet_items=24"
        )
    protocol = new_protocol(settings.protocol)
    raw, on_bad_item = _read(settings)
    findings = checks.check_choices(raw.choices) + checks.torn_groups(raw)
    torn = any(finding.kind == "leak_groups_given" for finding in findings)
    catalog, split_findings = _with_splits(raw, settings, torn=torn)
    findings += split_findings
    skipping = settings.data | {"on_bad_item": "skip_any"}
    cached = prepare(catalog, skipping, **vars(settings.pictures))
    catalog = cached.catalog
    rows, broken = catalog.refused[: len(raw.refused)], catalog.refused[len(raw.refused) :]
    severity: Severity = "error" if on_bad_item == "error" else "warning"
    findings += checks.check_refused(rows, broken, severity)
    findings += checks.check_left_out(len(catalog.refused), len(catalog), on_bad_item)
    with progress_bar("Looking at pictures", " pictures") as advance:
        facts = picture_facts(catalog, cached.pictures, advance)
    leaks = _leaks(catalog, facts, protocol)
    gallery, queries, chosen = _sides(cached, protocol, leaks, settings)
    findings += chosen
    findings += checks.check_splits(catalog) if not split_findings else []
    findings += leaks
    findings += checks.check_categories(catalog, gallery, queries)
    findings += checks.check_groups(catalog)
    findings += picture_checks.check_copies(catalog, facts)
    findings += picture_checks.check_near_copies(catalog, facts)
    findings += picture_checks.check_pictures(
        catalog,
        facts,
        size_px=settings.pictures.size_px,
        fit=one_of("pictures.fit", settings.pictures.fit, get_args(Fit)),
    )
    findings += checks.check_attributes(catalog)
    checked = Checked(
        folder=Path(settings.out or Path(settings.outputs) / "check" / catalog.name),
        cached=cached,
        findings=checks.gravest_first(findings),
        categories=checks.category_table(catalog, gallery, queries),
        attributes=checks.attribute_table(catalog),
        pictures=picture_checks.picture_table(facts),
        rule=_rule(catalog, protocol, gallery, queries),
        commands=_commands(raw, catalog, findings),
    )
    _write(checked, settings.sheet_items)
    return checked


def _read(settings: CheckSchema) -> tuple[Catalog, str]:
    """Returns the catalogue without its bad rows, and what training is to do with them."""
    from visual_search.views.progress import progress_bar

    node = dict(settings.data)
    builder, arguments = bind("data", node)
    parameters = inspect.signature(builder).parameters
    asked = "error"
    if "on_bad_item" in parameters:
        asked = arguments.get("on_bad_item", parameters["on_bad_item"].default)
        node["on_bad_item"] = "skip_any"
    with progress_bar("Reading the catalogue", " files") as advance:
        catalog: Catalog = build("data", node, on_progress=advance)
    return catalog, asked


def _with_splits(
    catalog: Catalog, settings: CheckSchema, *, torn: bool
) -> tuple[Catalog, list[Finding]]:
    """Returns the catalogue with its splits; as the data has them where they cannot be drawn."""
    from visual_search.catalog.checks import Finding
    from visual_search.runs.catalogs import with_splits

    if torn:
        return catalog, []
    try:
        return with_splits(catalog, settings.data, settings.split, settings.outputs), []
    except ValueError as error:
        advice = "Change what the message names; split=stratified suits most catalogues."
        return catalog, [Finding("split", "error", f"No split can be drawn: {error}.", advice)]


def _sides(
    cached: CachedCatalog, protocol: Protocol, leaks: Sequence[Finding], settings: CheckSchema
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Finding]]:
    """Asks what training asks of the sides before its first step.

    Returns:
        The gallery's rows and the queries', none where there are none; and why training would stop.
    """
    import numpy as np

    from visual_search.catalog.checks import Finding
    from visual_search.training.query_gallery import LeakError, check_depth, choose_sides

    catalog = cached.catalog
    gallery = queries = np.zeros(0, dtype=np.int64)
    found: list[Finding] = []
    problems: dict[str, None] = {}  # each once: a column that is missing is missed by both splits
    for split in (QUERY_SPLIT, "val"):
        if split != QUERY_SPLIT and not len(catalog.rows_of_split(split)):
            continue
        try:
            selection = protocol.choose(catalog.table, split)
            if split == QUERY_SPLIT:
                gallery, queries = selection.gallery_rows, selection.query_rows
            try:
                sides = choose_sides(protocol, catalog, cached.pictures, split)
            except LeakError as error:
                if not any(leak.severity == "error" for leak in leaks):
                    advice = "Do what the message says; training stops at it."
                    found.append(Finding("leak_sides", "error", str(error), advice))
                dropping = replace(protocol, on_leak="drop")  # does it leave enough?
                sides = choose_sides(dropping, catalog, cached.pictures, split)
            check_depth(protocol, catalog, sides.selection, split)
            if split == QUERY_SPLIT:
                found += _unanswered(catalog, protocol, sides.selection)
                found += _expected(catalog, sides.selection, settings)
        except ValueError as error:
            problems[str(error)] = None
    if problems:
        what = f"The protocol {protocol.name} cannot measure: {'; '.join(problems)}."
        advice = "Choose another protocol, or change what the message names."
        found.append(Finding("protocol", "error", what, advice))
    return gallery, queries, found


def _expected(catalog: Catalog, selection: Selection, settings: CheckSchema) -> list[Finding]:
    """Says how exactly a test will tell, where that is not exactly enough."""
    from visual_search.catalog.checks import Finding
    from visual_search.retrieval.expectation import expect
    from visual_search.training.query_gallery import expected_of

    said = expected_of(catalog, selection)
    if not said:
        return []
    groups = catalog.table["group"].iloc[selection.query_rows].tolist()
    severity: Severity = "error" if expect(groups).is_too_little else "warning"
    if settings.split.allow_few:
        severity = "note"
    advice = (
        "Give more items or groups, raise split.test_fraction, or group by what is finer; training "
        "on it all the same needs split.allow_few=true."
        if severity == "error"
        else "Raise split.test_fraction, or give more items and groups."
    )
    what = f"The {QUERY_SPLIT} split has {said}."
    return [Finding("few_groups", severity, what, advice)]


def _unanswered(catalog: Catalog, protocol: Protocol, selection: Selection) -> list[Finding]:
    """Says how many queries find nothing relevant, of which a mean is not over them."""
    from visual_search.catalog.checks import Finding, NamedItem, about
    from visual_search.retrieval.measure import count_admitted

    relevant = count_admitted(catalog.table, protocol, selection, protocol.relevance)
    lost = catalog.table["item_id"].to_numpy()[selection.query_rows][relevant == 0].tolist()
    by = " and ".join(protocol.relevance)
    if len(lost) == len(relevant):
        what = f"No query of the {QUERY_SPLIT} split has anything relevant in the gallery, by {by}"
        advice = "Choose another protocol.relevance, or group wider in the data."
        return [Finding("unanswered", "error", f"{what}: nothing can be measured.", advice)]
    if protocol.relevance == ("category",):  # categories are named one by one
        return []
    what = (
        f"{len(lost):,} of {many(len(relevant), 'query', 'queries')} "
        f"{'has' if len(lost) == 1 else 'have'} nothing relevant in the "
        f"gallery, by {by}, and are not scored."
    )
    items = [NamedItem(item_id, f"no item of the gallery has its {by}") for item_id in lost]
    advice = "Give more items like them, or choose another protocol.relevance."
    return about(items, "unanswered", "warning", what, advice)


def _leaks(catalog: Catalog, facts: pd.DataFrame, protocol: Protocol) -> list[Finding]:
    """Names pixels and groups that stand on both sides of the splits, each pair of them."""
    from visual_search.catalog.checks import Finding, NamedItem
    from visual_search.retrieval.leaks import find_leaks

    table = catalog.table[["item_id", "group"]].assign(pixels=facts["pixels"].to_numpy())
    findings = []
    texts = {"pixels": "the very picture of", "group": "the group of"}
    severity: Severity = "error" if protocol.on_leak == "error" else "warning"
    advice = {
        "pixels": "Give both one group, so that no split tears them apart, or remove one of them; "
        "protocol.on_leak=drop leaves the queries out.",
        "group": "Mend the split column, or read the data without it: whole groups are drawn then.",
    }
    for held, asking in (("train", "test"), ("train", "val"), ("val", "test")):
        sides = [table.iloc[catalog.rows_of_split(split)] for split in (held, asking)]
        if not all(map(len, sides)):
            continue
        leaks = find_leaks(*sides, check=("pixels", "group"), max_listed=1000)
        for kind, text in texts.items():
            number = leaks.num_pairs[kind]  # type: ignore[index]
            if not number:
                continue
            items = tuple(
                NamedItem(pair.query_id, f"{asking}, beside {held}", pair.gallery_id)
                for pair in leaks.pairs
                if pair.kind == kind
            )
            findings.append(
                Finding(
                    f"leak_{kind}",
                    severity,
                    f"In {many(number, 'pair')} an item of {asking} has {text} an item of {held}.",
                    advice[kind],
                    items,
                    number,
                )
            )
    return findings


def _rule(
    catalog: Catalog, protocol: Protocol, gallery: NDArray[np.int64], queries: NDArray[np.int64]
) -> str:
    from visual_search.catalog.catalog import SPLITS

    if not len(gallery):
        return "No gallery can be chosen; see the findings."
    ask = "asks" if len(queries) == 1 else "ask"
    text = (
        f"The gallery of {protocol.name} keeps {len(gallery):,} of {many(len(catalog), 'item')}; "
        f"{many(len(queries), 'item')} of the {QUERY_SPLIT} split {ask}."
    )
    if protocol.name != "gallery_query":
        return text
    held = set(catalog.table["split"].iloc[gallery])
    splits = [split for split in SPLITS if split in held]
    pool = catalog.table["category"][catalog.table["split"].isin(splits)].value_counts()
    kept = catalog.table["category"].iloc[gallery].value_counts()
    cut = [name for name in pool.index if kept.get(name, 0) < pool[name]]
    if not cut:
        noun = "split" if len(splits) == 1 else "splits"
        return f"{text} No category of the {' and '.join(splits)} {noun} is cut."
    left_out = int(pool.sum()) - len(gallery)
    return (
        f"{text} Of {many(len(cut), 'category', 'categories')} it takes the "
        f"{int(kept.max()):,} that the seed chooses, which leaves out {many(left_out, 'item')}: "
        f"{listed(cut, 8)}."
    )


def _commands(
    raw: Catalog, catalog: Catalog, findings: Sequence[Finding]
) -> Sequence[tuple[str, str]]:
    """Returns what each is for, and the command: what was typed, and what was found out.

    What trains on the catalogue as it was read, by the recipe for one of its kind, and by that for
    attributes where it has some. What stops training and may be allowed is allowed in it, and
    queries that leak are left out. Where all of it is test, it is what measures a run on it.
    Nothing where something else is to be mended first, or nothing was typed.

    Args:
        raw: As it was read.
        catalog: Without its broken pictures.
        findings: All of them.
    """
    import shlex

    from hydra.core.hydra_config import HydraConfig

    from visual_search.catalog.checks import check_left_out
    from visual_search.retrieval.comparability import in_override
    from visual_search.runs.recipe import recipe_for, recipe_for_attributes

    errors = {finding.kind for finding in findings if finding.severity == "error"}
    if not HydraConfig.initialized() or errors - {*_BAD_ITEMS, *_LEAKS, "few_groups"}:
        return []
    typed = {
        override.partition("=")[0].lstrip("+"): override
        for override in HydraConfig.get().overrides.task
        if override.lstrip("+").partition("=")[0].partition(".")[0] in _SHARED_WITH_TRAIN
    }
    added = {f"data.{key}": in_override(value) for key, value in raw.settings.items()}
    if errors & {*_BAD_ITEMS}:
        too_many = check_left_out(len(catalog.refused), len(catalog), "skip")
        added["data.on_bad_item"] = "skip_any" if too_many else "skip"
    if "few_groups" in errors:
        added["split.allow_few"] = "true"
    anyway = ", in spite of the errors" if errors else ""
    if errors & {*_LEAKS}:
        added["protocol.on_leak"] = "drop"
        anyway += " and without the queries that leak"
    typed |= {key: f"{key}={value}" for key, value in added.items()}
    if not len(catalog.rows_of_split("train")):
        typed = {key: text for key, text in typed.items() if key.startswith(_SHARED_WITH_EVALUATE)}
        command = ["python", "-m", "visual_search.evaluate", "run=PATH", *typed.values()]
        return [(f"To measure a run on it as it was read here{anyway}", shlex.join(command))]
    recipes = [recipe_for(catalog), recipe_for_attributes(catalog)]
    heads = [f"To train on it as it was read here{anyway}", "The same"]
    train = ["python", "-m", "visual_search.train"]
    return [
        (f"{head} ({recipe.why})", shlex.join([*train, *recipe.overrides, *typed.values()]))
        for head, recipe in zip(heads, recipes, strict=True)
        if recipe is not None
    ]


def _write(checked: Checked, sheet_items: int) -> None:
    from visual_search.atomic import write_text
    from visual_search.catalog.checks import SEVERITIES
    from visual_search.retrieval.report_files import plain
    from visual_search.runs.run import write_json
    from visual_search.views.html_check import check_page

    checked = replace(checked, findings=tuple(map(_without_places, checked.findings)))
    write_text(checked.folder / REPORT_FILE, check_page(_page(checked, sheet_items)))
    catalog = checked.cached.catalog
    content = {
        "catalog": catalog.name,
        "standing": checked.standing,
        "num_items": len(catalog),
        "num_refused": len(catalog.refused),
        "choices": [asdict(choice) for choice in catalog.choices],
        "num_groups": int(catalog.table["group"].nunique()),
        **{f"num_{severity}s": checked.num(severity) for severity in SEVERITIES},
        "findings": [asdict(finding) for finding in checked.findings],
        "rule": checked.rule,
        "categories": checked.categories.to_dict("records"),
        "attributes": checked.attributes.to_dict("records"),
        "pictures": checked.pictures.to_dict("records"),
    }
    write_json(checked.folder / FINDINGS_FILE, plain(content))


def _without_places(finding: Finding) -> Finding:
    """Returns a finding as it is written: pages are handed around, the terminal is the owner's."""
    from visual_search.runs.places import text_without_places as shown

    items = tuple(replace(item, why=shown(item.why)) for item in finding.items)
    return replace(finding, what=shown(finding.what), advice=shown(finding.advice), items=items)


def _page(checked: Checked, sheet_items: int) -> CheckPage:
    from datetime import datetime

    import pandas as pd

    from visual_search.views.html_check import CheckFinding, CheckPage, ShownPair

    catalog, pictures = checked.cached.catalog, checked.cached.pictures
    row_of_id = {item_id: row for row, item_id in enumerate(catalog.table["item_id"])}
    findings = []
    for finding in checked.findings:
        pairs = []
        for item in finding.items[:8]:
            ids = [each for each in (item.item_id, item.other_id) if each in row_of_id]
            # a category or an attribute may be called like an item, and has no picture
            if item.item_id in row_of_id and not finding.kind.startswith(_WITHOUT_PICTURES):
                shown = pictures[[row_of_id[each] for each in ids]]
                pairs.append(ShownPair(list(shown), ids, item.why))
        named = [(item.item_id, item.why, item.other_id) for item in finding.items]
        other = "picture" if finding.names_pictures else "beside"
        table = pd.DataFrame(named, columns=["name", "why", other])
        if not table[other].any():
            table = table.drop(columns=other)
        findings.append(
            CheckFinding(
                finding.severity, finding.what, finding.advice, table, finding.num_items, pairs
            )
        )
    return CheckPage(
        name=catalog.name,
        standing=checked.standing,
        numbers=numbers_of(checked),
        findings=findings,
        categories=checked.categories,
        attributes=checked.attributes,
        pictures=checked.pictures,
        sheets=_sheets(checked, sheet_items),
        rule=checked.rule,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _sheets(checked: Checked, sheet_items: int) -> list[ContactSheet]:
    """Returns a contact sheet of each category, and of those that are too many one together."""
    import numpy as np

    from visual_search.views.html_check import ContactSheet

    def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        places = np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.int64)
        return rows[places]

    catalog, pictures = checked.cached.catalog, checked.cached.pictures
    rows_of = {
        name: np.asarray(rows, dtype=np.int64)
        for name, rows in catalog.table.groupby("category").indices.items()
    }
    names = list(checked.categories["category"])
    sheets = [
        ContactSheet(name, len(rows_of[name]), pictures[spread(rows_of[name], sheet_items)])
        for name in names[:MAX_SHEETS]
    ]
    rest = np.array([rows_of[name][0] for name in names[MAX_SHEETS:]], dtype=np.int64)
    if len(rest):
        title = "Of each smaller category one picture"
        sheets.append(ContactSheet(title, len(rest), pictures[spread(rest, 3 * sheet_items)]))
    return sheets


if __name__ == "__main__":
    main()
