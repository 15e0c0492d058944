"""The three pages: what stands in them and in which order, and that they load nothing."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.views.drawn import pictures, row
from visual_search.views import html
from visual_search.views.html_page import mark
from visual_search.views.picture_grids import SearchRow
from visual_search.views.table import Cell, Row, Table, TableColumn, valued

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Reads a page: its elements with their attributes, texts, scripts, ids and headings."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"elements that are not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute stands twice: {attrs}"
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @functools.cached_property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def chart() -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.subplots().bar(["hat", "shoe"], [0.2, 0.6])
    return figure


class Said:
    """Texts of a page: as they are given, or all of them one label."""

    def __init__(self, label: str | None) -> None:
        self.label = label

    def __call__(self, text: str) -> str:
        return text if self.label is None else self.label

    def link(self, path: str) -> str:
        return path if self.label is None else f"x{self.label}"


def summary(label: str | None = None) -> dict[str, Any]:
    say = Said(label)
    floors = [
        {
            "name": name, "title": title, "dim": 64, "definition": say(f"About {title}."),
            "micro_map_at_5": value, "macro_map_at_5": value, "micro_precision_at_5": value,
            "micro_hit_at_1": value, "micro_low": value - 0.02, "micro_high": value + 0.02,
            "macro_low": value - 0.02, "macro_high": value + 0.02, "difference": 0.5 - value,
            "difference_low": 0.48 - value, "difference_high": 0.52 - value, "p_value": 0.0001,
        }
        for name, title, value in (
            ("random", say("Random"), 0.1), ("hog", "HOG", 0.6), ("untrained", "Untrained", 0.49)
        )
    ]  # fmt: skip
    ends = {"low": 0.48, "high": 0.52, "num_groups": 90, "confidence": 0.95}
    return {
        "k": 5, "num_gallery": 11029, "num_queries": 1196, "num_queries_scored": 1190,
        "num_left_out": 6, "num_categories": 2, "micro_map_at_5": 0.5, "macro_map_at_5": 0.4,
        "micro_precision_at_5": 0.55, "micro_hit_at_1": 0.61, "embedding_dim": 4096,
        "definitions": {say("map_at_5"): say("Mean of AP@5.")},
        "rules": {say("ties"): say("By item id.")},
        "headline": {"mean": "map_at_5", "title": "mAP@5"},
        "intervals": {"micro": ends, "macro": ends | {"low": 0.38, "high": 0.42}},
        "identity": {"data": say("shop"), "protocol_name": say("gallery_query"),
                     say("gallery"): say("ab12"),
                     "protocol_settings": {say("relevance"): [say("category")]}},
        "floors": floors, "standing": say("mAP@5 0.500 lies above chance and below HOG."),
        "index": {"bytes": 180_775_246}, "epochs": 3,
    }  # fmt: skip


def per_category(names: tuple[str, str] = ("hat", "shoe")) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "category": names, "num_gallery": [900, 73], "num_queries": [100, 6],
            "num_queries_scored": [100, 5], "num_left_out": [0, 1], "map_at_5": [0.3, 0.9],
            "precision_at_5": [0.4, 0.8], "headline_low": [0.25, np.nan],
            "headline_high": [0.35, np.nan], "num_groups": [90, 5], "few_queries": [False, True],
        }
    )  # fmt: skip


def answers(say: Said, query: str = "q1") -> SearchRow:
    return row(
        2, query_label=say(query), query_category=say("hat"), neighbour_labels=[say("n1")] * 2,
        neighbour_categories=[say("hat")] * 2,
    )  # fmt: skip


def projection(labels: Sequence[str] = ("hat", "shoe") * 15) -> html.ProjectionView:
    points = np.random.default_rng(0).normal(size=(len(labels), 3)).astype(np.float32)
    return html.ProjectionView(
        points, labels, labels, "UMAP to 3 dimensions", pictures(len(labels))
    )


def whole_run(label: str | None = None) -> html.RunPage:
    say = Said(label)
    captions = say("a1"), say("b2")
    pair = html.PicturePair((pictures(1)[0], pictures(1)[0]), captions, say("2 of 64 bits"))
    found = pd.DataFrame({say("a"): [say("x")], "b": [1.5]})
    page = html.RunPage(
        say("baseline"), say("179231a1fb"), summary(label), say("23 November 2026"),
        per_category((say("hat"), "shoe")),
        pd.DataFrame({"category": [say("hat"), "shoe"], say("hog"): [0.4, 0.2], "r": [0.1, 0.1]}),
        examples=[html.ExampleGroup(say("hat"), [answers(say)], [answers(say, "q2")], say("n 1"))],
        findings=[html.DataFinding(say("Near"), say("Two of them."), found, [pair], False)],
        config=say("name: baseline\n"), environment={say("packages"): {say("torch"): say("2.15")}},
        command=say("train experiment=baseline"), facts={say("parameters"): say("2,898,915")},
    )  # fmt: skip
    if label is not None:
        return page
    return replace(
        page, floors_chart=chart(), category_chart=chart(), curves=chart(),
        reconstructions=chart(), feature_maps=[chart(), chart()], projection=projection(),
        confusion=chart(), class_distribution=chart(),
    )  # fmt: skip


def comparison(label: str | None = None) -> html.ComparisonPage:
    say = Said(label)
    one, two = say("baseline 1a"), say("plus_layer 2b")
    runs = [
        html.ComparedRun(one, summary(label), say.link("baseline/1a/report.html")),
        html.ComparedRun(two, summary(label) | {"micro_map_at_5": 0.7}),
    ]
    difference = {"difference": 0.2, "low": 0.1, "high": 0.3, "p_value": 0.0004}
    tested = {"holm_p_value": 0.0312, "verdict": say("clearly better")}
    by_category = {"category": [say("hat")], "num_queries": [100], one: [0.5]}
    by_category |= {"difference": [-0.125], "low": [-0.2], "high": [-0.05]}
    pair = [(one, answers(say)), (two, answers(say))]
    return html.ComparisonPage(
        say("Two runs"), say("plus_layer is better."), runs, say("23 November 2026"),
        pd.DataFrame([{"first": two, "second": one, **difference, **tested}]),
        [chart()] if label is None else (), pd.DataFrame(by_category),
        [html.ComparedQuery(pair, say("AP@5 differs by 0.8"))],
        {say("trainer.max_epochs"): {one: 3, two: 12}}, [say("A note.")],
    )  # fmt: skip


def ranking(*names: str, href: str = "") -> Table:
    rows = [
        Row((valued(f"={rank}", rank), Cell(name, href=href),
             valued("0.500", 0.5, "[0.480, 0.520]", rough=True), Cell(mark=mark(0.5, 0.4, 0.6, 1)),
             Cell(name)), "floor" if name == "HOG" else "run")
        for rank, name in enumerate(names, 1)
    ]  # fmt: skip
    columns = [TableColumn("#"), TableColumn("Run", "name"), TableColumn("mAP@5")]
    columns += [TableColumn("0.6", "mark"), TableColumn("Folder", "words")]
    return Table("", columns, rows)


def leaderboard(label: str | None = None) -> html.LeaderboardPage:
    say = Said(label)
    names = say("plus_layer"), say("HOG"), say("baseline")
    table = ranking(*names, href=say.link("base line/1a#2/report.html"))
    groups = [
        html.LeaderboardGroup(say("shop"), say("gallery_query"), table, say("1,196 queries.")),
        html.LeaderboardGroup("empty", "gallery_query", ranking()),
    ]
    return html.LeaderboardPage(groups, [(say("outputs/x/1"), say("it failed"))], say("today"))


PAGES: dict[str, Callable[[str | None], str]] = {
    "run": lambda label: html.run_report(whole_run(label)),
    "comparison": lambda label: html.comparison_page(comparison(label)),
    "leaderboard": lambda label: html.leaderboard_page(leaderboard(label)),
}


@functools.cache
def read(name: str) -> Page:
    return Page(PAGES[name](None))


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> Page:
    return read(request.param)


def shown(page: html.RunPage | html.ComparisonPage) -> str:
    write: Any = html.run_report if isinstance(page, html.RunPage) else html.comparison_page
    return Page(write(page)).text


def test_page_loads_nothing(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"iframe", "object", "embed", "base", "form", "audio", "video"}
        assert "src" not in attributes or (attributes["src"] or "").startswith("data:image/")
        link = attributes.get("href") or "#"
        assert link.startswith(("#", "./" if tag == "a" else "data:")), link
        assert not [name for name in attributes if name.startswith("on")]
    css = "".join(re.findall(r"<style>(.*?)</style>", page.source, re.S))
    assert not re.search(r"url\((?!#)|@import", css)


def test_policy_allows_only_the_scripts_of_the_page(page: Page) -> None:
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    code = [script for attributes, script in page.scripts if not attributes.get("type")]
    sums = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in code]
    assert rules["script-src"].split() == [f"'sha256-{each}'" for each in sums]
    assert len(sums) >= 1


def test_headings_and_landmarks_are_in_order(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [len(page.all(tag)) for tag in ("header", "nav", "main")] == [1, 1, 1]
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    links = [(a["href"] or "")[1:] for a in page.all("a") if (a["href"] or "").startswith("#")]
    assert len(links) > 1
    assert set(links) <= set(ids)
    assert all(image.get("alt") for image in page.all("img"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))


@pytest.mark.parametrize("name", PAGES)
def test_page_is_the_same_for_the_same_content(name: str) -> None:
    assert PAGES[name](None) == read(name).source


def test_run_report_shows_everything_in_its_order() -> None:
    page = read("run")
    ids = [section["id"] for section in page.all("section")]
    assert ids == [
        "floors", "categories", "curves", "reconstructions", "feature-maps",
        "projection", "examples", "confusion", "distribution", "findings", "definitions",
        "provenance",
    ]  # fmt: skip
    for part in (
        "mAP@5 0.500 lies above chance and below HOG.", "95 % interval [0.480, 0.520]", "11,029",
        "6 more left out", "few", "+0.400", "< 0.001", "2 of 64 bits", "Mean of AP@5.",
        "By item id.", "name: baseline", "train experiment=baseline", "packages.torch", "ab12",
        "2,898,915", "About HOG.", "“Few” marks the 1 with", "▼ marks the 1 in", "▼ 0.400 HOG",
    ):  # fmt: skip
        assert part in page.text, part
    order = ("this run", "HOG 0.600", "Untrained 0.490", "Random 0.100")
    assert [*map(page.text.index, order)] == sorted(map(page.text.index, order))


def test_floors_are_carried_by_the_run_s_groups() -> None:
    ends = {name: held | {"rough": True} for name, held in summary()["intervals"].items()}
    page = Page(html.run_report(html.RunPage("a", "b", summary() | {"intervals": ends})))
    assert page.text.count("~[") == 4 * 2 + 3, "both means of the run and 3 floors, differences"


def test_run_report_leaves_out_what_is_missing() -> None:
    text = html.run_report(html.RunPage("baseline", "1a", {}))
    page = Page(text)
    assert not [*page.all("section"), *page.all("nav"), *page.all("h2")]
    assert "baseline" in page.text
    assert len(text) < 60_000  # without points there is no plotly


def test_reference_rule_has_its_own_headline() -> None:
    own = {
        "k": 5, "headline": {"mean": "reference_2023", "title": "reference_2023"},
        "micro_reference_2023": 0.75, "macro_reference_2023": 0.5,
    }  # fmt: skip
    table = pd.DataFrame({"category": ["hat"], "num_queries": [3], "reference_2023": [0.75]})
    assert "reference_2023, micro 0.750" in shown(html.RunPage("a", "b", own, per_category=table))


def test_comparison_shows_the_runs_among_the_floors() -> None:
    text = read("comparison").text
    places = [text.index(name) for name in ("plus_layer 2b 0.700", "HOG floor", "baseline 1a 0.5")]
    assert places == sorted(places)
    assert text.count("HOG floor") == 1  # the same for both runs
    for part in (
        "plus_layer is better.", "▲ +0.200", "[+0.100, +0.300]", "< 0.001", "0.031",
        "clearly better", "▼ -0.125", "AP@5 differs by 0.8", "trainer.max_epochs", "181 MB",
        "A note.", "Mean of AP@5.",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize(("p_holm", "sign"), [(0.04, "▲"), (0.06, "≈")])
def test_a_sign_never_disagrees_with_the_corrected_p_of_its_row(p_holm: float, sign: str) -> None:
    row = {"difference": 0.2, "low": 0.1, "high": 0.3, "p_value": 0.01}
    tests = pd.DataFrame([{"first": "b", "second": "a", **row, "holm_p_value": p_holm}])
    assert f"{sign} +0.200" in shown(replace(comparison(), tests=tests))
    floor = {"name": "hog", "micro_map_at_5": 0.4, "difference": 0.2, "difference_low": 0.1}
    floor |= {"difference_high": 0.3, "p_value": 0.01, "p_holm": p_holm}
    text = shown(html.RunPage("a", "b", summary() | {"floors": [floor]}))
    assert f"{sign} +0.200" in text
    assert f"0.010 Holm {p_holm:.3f}" in text


def test_equal_answers_are_called_so_and_rough_intervals_rough() -> None:
    row = {"first": "b", "second": "a", "difference": 0.0, "low": 0.0, "high": 0.0, "p_holm": 1.0}
    other = row | {"difference": 0.2, "low": 0.1, "high": 0.3, "p_holm": 0.01, "rough": True}
    tests = pd.DataFrame([row | {"rough": False}, other])
    text = shown(replace(comparison(), tests=tests))
    assert "same answers" in text
    assert "+0.000" not in text
    assert "~[+0.100, +0.300]" in text


def test_floor_that_each_run_has_of_its_own_names_the_run() -> None:
    page = comparison()
    other = summary()
    other["floors"][2] |= {"micro_map_at_5": 0.45}
    runs = [page.runs[0], html.ComparedRun("other", other)]
    text = shown(replace(page, runs=runs))
    assert "Untrained: baseline 1a" in text
    assert "Untrained: other" in text


def test_leaderboard_shows_rows_in_their_order_with_links_and_intervals() -> None:
    page = read("leaderboard")
    order = ["2 runs", "=1", "plus_layer", "=2", "HOG", "=3", "baseline"]
    assert [*map(page.text.index, order)] == sorted(map(page.text.index, order))
    assert "./base%20line/1a%232/report.html" in [link["href"] for link in page.all("a")]
    assert "0.500 [0.480, 0.520]" in page.text
    assert 'title="rough: few groups carry it"' in page.source
    assert "it failed" in page.text
    assert "empty" not in page.text


def run_page(**more: Any) -> str:
    return html.run_report(html.RunPage("a", "b", **{"summary": {}, **more}))


FLAT = html.PicturePair((pictures(1)[0, 0], pictures(1)[0]), ("a", "b"))
OTHER_METRIC = summary() | {"headline": {"mean": "ndcg_at_5", "title": "nDCG@5"}}
REFUSED: list[tuple[Callable[[], str], str]] = [
    (lambda: run_page(summary=OTHER_METRIC, per_category=per_category()), "no column 'ndcg_at_5'"),
    (lambda: run_page(findings=[html.DataFinding("x", "y", pairs=[FLAT])]),
     r"picture\[None\] is \[1, 16, 16\] uint8"),
    (lambda: html.comparison_page(html.ComparisonPage("a", "b", [])), "runs is empty"),
    (lambda: html.comparison_page(html.ComparisonPage(
        "a", "b", [html.ComparedRun("a", summary(), "/etc/report.html")])),
     r"href is '/etc/report\.html'"),
    (lambda: html.leaderboard_page(html.LeaderboardPage([
        html.LeaderboardGroup("a", "b", ranking("a", href="//elsewhere/report.html"))])),
     "relative to the page's folder"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_cannot_stand_on_a_page_is_refused(make: Callable[[], str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_leaderboard_without_runs_says_so() -> None:
    assert "There is no run to rank." in html.leaderboard_page(html.LeaderboardPage([]))
