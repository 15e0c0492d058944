"""TensorBoard as a run fills it: under its name, curves in front, layouts that answer at once."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from visual_search.views.style import metric_title

FLOOR = "val_floor/"  # the best floor on the validation queries, as RetrievalEvaluation logs it

_POINTS = ("test/", "floor/")  # known once, at the end: charts of a single point
_FINAL, _FINAL_SHOWN = "final/", "whole_run/"  # sorts behind the curves and the views
_LINES_PER_CHART = 10
_OF_CATEGORY = re.compile(r"val/[^/]+/.+")

Layout = dict[str, dict[str, list[Any]]]


class RunTensorBoard(TensorBoardLogger):
    """Writes ``<save_dir>/<experiment>/<hash>``, so that TensorBoard shows the run by its name.

    Beside what Lightning logs there is a layout for the tab Custom Scalars: training and validation
    loss in one chart, retrieval beside the best floor, and how well each category is found. What is
    measured once, at the end, is no chart: the numbers that runs are compared by stand in the tab
    HParams, everything in the run's report.

    A run that an earlier version began goes on in ``save_dir`` itself, where its curves are.

    Args:
        save_dir: The folder ``tensorboard`` of a run's folder ``<experiment>/<hash>``.
    """

    def __init__(self, save_dir: str) -> None:
        folder = Path(save_dir)
        run = folder.absolute().parent
        began_there = any(folder.glob("events.out.tfevents.*"))
        name, version = ("", "") if began_there else (run.parent.name, run.name)
        super().__init__(save_dir, name, version, default_hp_metric=False)
        self._categories: list[str] | None = None  # that stand in the layout; None: there is none
        self._floors: set[str] = set()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes the curves among the metrics, and the layout when it has changed."""
        curves = {
            name: value
            for name, value in metrics.items()
            if name != "epoch" and not name.startswith(_POINTS)
        }
        for name in curves.keys() - self._floors:
            if name.startswith(FLOOR):  # a line from the first step on: training does not move it
                super().log_metrics({name: curves[name]}, 0)
                self._floors.add(name)
        super().log_metrics(curves, step)
        categories = [name for name in curves if _OF_CATEGORY.fullmatch(name)]
        if self._categories is None or (categories and not self._categories):
            self.experiment.add_custom_scalars(layout(categories))
            self._categories = categories

    @rank_zero_only
    def log_hyperparams(
        self,
        params: dict[str, Any] | Namespace,
        metrics: dict[str, Any] | None = None,
        step: int | None = None,
    ) -> None:
        """Writes settings and final numbers for the tab HParams; their points come last."""
        shown = {
            name.replace(_FINAL, _FINAL_SHOWN, 1) if name.startswith(_FINAL) else name: value
            for name, value in (metrics or {}).items()
        }
        super().log_hyperparams(params, shown or None, step)


def layout(categories: Iterable[str]) -> Layout:
    """Returns what the tab Custom Scalars shows, in TensorBoard's form.

    Runs of the same kind have the same layout, and so share its charts.

    Args:
        categories: Names under which the headline by category is logged, as ``val/map_at_5/Hats``,
            in the order in which they are to be shown; none where nothing was measured yet.
    """
    shown: Layout = {"At a glance": {"Is it learning: loss": _lines("train/loss", "val/loss")}}
    names = list(categories)
    if not names:
        return shown
    mean = names[0].split("/")[1]
    title = metric_title(mean)
    retrieval = _lines(f"val/{mean}")
    retrieval[1].append(f"^{re.escape(f'{FLOOR}{mean}/')}")  # whichever floor is the best
    shown["At a glance"][f"Does it retrieve: {title}, best floor"] = retrieval
    by_category: dict[str, list[Any]] = {}
    for start in range(0, len(names), _LINES_PER_CHART):
        part = names[start : start + _LINES_PER_CHART]
        which = f"categories {start + 1} to {start + len(part)} by queries"
        by_category[f"{title}, {which}"] = _lines(*part)
    return shown | {"By category": by_category}


def _lines(*names: str) -> list[Any]:
    return ["Multiline", [f"^{re.escape(name)}$" for name in names]]
