"""Measures how small a finished run's gallery can be stored, and what that costs in quality.

``python -m visual_search.compress run=PATH``; ``--help`` lists what can be set.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import CompressSchema
from visual_search.reading import SAVED, read_array, read_table
from visual_search.wording import count, difference, file_size, number, three_digits

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from visual_search.retrieval.protocol import Protocol
    from visual_search.retrieval.report import RetrievalReport
    from visual_search.retrieval.size_quality import SizeQuality, Verdict
    from visual_search.runs.run import Run
    from visual_search.views.table import Table


FOLDER = "compression"
TABLE_FILE, FIGURE_FILE, SUMMARY_FILE = "compression.csv", "compression.png", "summary.json"
SIZE_RULE = (
    "bytes_per_item is what FAISS stores an item (sa_code_size), ids apart; shared_bytes is stored "
    "once for all items: codebooks, ranges, axes."
)
INTERVAL_RULE = (
    "[ ] is the 95 % interval of the difference to float32 over the same queries, not corrected "
    "for the number of codecs; ~ marks a rough one, which few groups carry; same answers: no query "
    "changes."
)
CHOSEN_HERE = (
    "The codec is chosen on the queries that it is measured on; confirm it on others before "
    "relying on the last thousandth."
)


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("compress", compress_command)


def compress_command(settings: CompressSchema) -> None:
    """Measures every codec on the run that the composed config names, and prints the verdict."""
    print_compression(compress_run(settings))


@dataclass(frozen=True)
class Compressed:
    """What codecs cost on a run, and where it lies.

    Attributes:
        folder: With the table, the figure and the summary.
        run: What was measured.
        measured: The numbers.
        verdict: What follows from them.
        left_out: Codec -> why it does not fit.
    """

    folder: Path
    run: Run
    measured: SizeQuality
    verdict: Verdict
    left_out: dict[str, str]


def compress_run(settings: CompressSchema) -> Compressed:
    """Measures every codec that fits on a finished run, from its saved embeddings alone.

    Args:
        settings: The composed ``conf/compress.yaml``.

    Raises:
        ConfigError: No run is named, it is not finished, has no embeddings or no protocol that can
            be named, its saved result does not follow from its embeddings, or a limit is wrong.
    """
    from visual_search.knn.codecs import codecs_for
    from visual_search.retrieval.floor_comparison import right_by_definition
    from visual_search.retrieval.size_quality import measure_codecs, verdict
    from visual_search.views.progress import progress_bar

    if not 0 <= settings.max_loss < math.inf or not 1 < settings.times_smaller < math.inf:
        raise ConfigError(
            f"max_loss={settings.max_loss} and times_smaller={settings.times_smaller}; "
            "expected 0 or more, and above 1: set max_loss=0.01 times_smaller=8"
        )
    run = _measured_run(settings.run)
    saved = _Saved(run)
    flat = saved.flat()
    codecs, left_out = codecs_for(saved.gallery.shape[1], len(saved.gallery))
    with progress_bar("Compressing", " codecs") as advance:
        measured = measure_codecs(
            codecs,
            saved.gallery,
            saved.queries,
            saved.table,
            saved.protocol,
            saved.selection,
            flat=flat,
            seed=settings.seed,
            on_progress=advance,
        )
    found = verdict(measured, settings.max_loss, settings.times_smaller)
    if said := right_by_definition(saved.report.summary):
        found = replace(found, sentence=f"{said} No codec can be chosen by it.")
    folder = Path(settings.out or run.folder / FOLDER)
    compressed = Compressed(folder, run, measured, found, {**left_out, **measured.left_out})
    _write(compressed)
    return compressed


def _measured_run(path: str | None) -> Run:
    from visual_search.runs.finished import measured_in

    if not path:
        raise ConfigError(
            "no run is named; expected run=PATH, the folder of a finished run or of one of its "
            "evaluations, such as outputs/plus_layer/0123456789"
        )
    return measured_in(path)


class _Saved:
    """What a run left: embeddings, items, rules, result.

    Raises:
        ConfigError: A part is missing, or the parts do not fit together.
    """

    def __init__(self, run: Run) -> None:
        import numpy as np
        import pandas as pd

        from visual_search.retrieval.protocol import Selection
        from visual_search.retrieval.report_files import load_report
        from visual_search.runs.parts import new_protocol

        self.run = run
        sides: dict[str, tuple[NDArray[np.float32], pd.DataFrame]] = {}
        for name in ("gallery", "queries"):
            try:
                held = np.array(read_array(run.folder / "embeddings" / f"{name}.npy", SAVED))
                items = read_table(run.folder / "embeddings" / f"{name}.parquet", SAVED)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"the embeddings of {run.folder} cannot be read ({error}); expected "
                    f"embeddings/{name}.npy and {name}.parquet: {self._again()}"
                ) from error
            if held.ndim != 2 or len(held) != len(items):
                raise ConfigError(
                    f"{run.folder} holds {held.shape} embeddings of {len(items)} item(s) as "
                    f"{name}; expected a row an item: {self._again()}"
                )
            sides[name] = held, items
        (self.gallery, held_items), (self.queries, asking) = sides.values()
        num = len(self.gallery)
        self.table: pd.DataFrame = pd.concat([held_items, asking], ignore_index=True).astype(object)
        self.selection = Selection(np.arange(num), np.arange(num, num + len(asking)))
        own = run.settings()
        if "_target_" not in own.protocol:
            raise ConfigError(
                f"run {run.folder} is older than named protocols ({own.protocol}); "
                f"expected one by name: {self._again()}, and name the evaluation's folder"
            )
        self.protocol: Protocol = new_protocol(own.protocol)
        self.report: RetrievalReport = load_report(run.folder / "metrics")

    def flat(self) -> RetrievalReport:
        """Measures the embeddings as they are, which has to give the run's own result.

        Raises:
            ConfigError: It does not, so the parts of the folder belong to different measurements.
        """
        import numpy as np

        from visual_search.retrieval.comparison import headline_of
        from visual_search.retrieval.size_quality import search_decoded
        from visual_search.retrieval.statistics import align_queries

        headline = headline_of(self.report.summary)
        try:
            found = search_decoded(
                self.gallery, self.queries, self.table, self.protocol, self.selection
            )
            stored, again = align_queries(self.report.per_query, found.per_query)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"the embeddings of {self.run.folder} do not give its saved result: {error}; "
                f"expected parts of one measurement: {self._again()}"
            ) from error
        column = headline["column"]
        before, now = (side[column].to_numpy(dtype=np.float64) for side in (stored, again))
        differs = np.flatnonzero(~((before == now) | (np.isnan(before) & np.isnan(now))))
        if len(differs):
            row = int(differs[0])
            raise ConfigError(
                f"the embeddings of {self.run.folder} do not give its saved result: "
                f"{len(differs)} of {len(before)} queries differ, such as "
                f"{stored['query_id'][row]!r} with {now[row]:.4f} and {before[row]:.4f} saved; "
                f"expected the same {headline['title']} of every query: {self._again()}"
            )
        return found

    def _again(self) -> str:
        from visual_search.runs.run import run_root

        root = shlex.quote(f"run={run_root(self.run.folder)}")
        return f"measure it again, python -m visual_search.evaluate {root} rerun=true"


def _write(compressed: Compressed) -> None:
    from visual_search.retrieval.report_files import plain, save_table
    from visual_search.runs.run import run_label, run_name, write_json
    from visual_search.views.compression_chart import compression_chart
    from visual_search.views.figures import save_figure

    measured, found = compressed.measured, compressed.verdict
    # First away and last written: what lies there with it belongs together.
    (compressed.folder / SUMMARY_FILE).unlink(missing_ok=True)
    save_table(measured.table, compressed.folder / TABLE_FILE)
    headline = measured.headline
    chart = compression_chart(
        measured.table,
        f"{headline['title']}, {headline['statistic']} mean",
        max_loss=found.max_loss,
        times_smaller=found.times_smaller,
        rough=measured.rough,
        marked=[name for name in (found.smallest, found.smallest_sure) if name],
        title=f"{run_name(compressed.run.folder)}: {headline['title']} against bytes an item",
    )
    save_figure(chart, compressed.folder / FIGURE_FILE)
    content = {
        "run": run_label(compressed.run.folder),
        "headline": dict(headline),
        "num_queries": measured.num_queries,
        "num_groups": measured.num_groups,
        "effective_groups": measured.effective_groups,
        "rough": measured.rough,
        "unit_length": measured.unit_length,
        **vars(found),
        "left_out": compressed.left_out,
        "rules": {
            "size": SIZE_RULE,
            "decoding": _decoding(measured),
            "choice": CHOSEN_HERE,
            "interval": INTERVAL_RULE,
        },
        "codecs": measured.table.to_dict("records"),
    }
    write_json(compressed.folder / SUMMARY_FILE, plain(content))


def _decoding(measured: SizeQuality) -> str:
    rule = "Codecs are trained on the gallery alone; queries stay float32 and are not encoded."
    if measured.unit_length:
        rule += " Embeddings have length 1, and decoded ones are scaled to length 1 again."
    return rule


def print_compression(compressed: Compressed) -> None:
    """Prints the codecs, the largest first, the verdict, and where the figure lies."""
    from rich.console import Console

    from visual_search.views.table import terminal

    console = Console(highlight=False)
    measured = compressed.measured
    console.print(terminal(_table(compressed)))
    for name, reason in compressed.left_out.items():
        console.print(f"Left out: {name}: {reason}.", markup=False)
    console.print(
        f"{SIZE_RULE} {_decoding(measured)} {INTERVAL_RULE} {CHOSEN_HERE}",
        markup=False,
    )
    console.print(f"\n{compressed.verdict.sentence}\n", style="bold", markup=False)
    for name in (FIGURE_FILE, TABLE_FILE, SUMMARY_FILE):
        console.print(f"  {compressed.folder / name}", markup=False, soft_wrap=True)


def _table(compressed: Compressed) -> Table:
    from visual_search.runs.run import run_name
    from visual_search.views.table import Row, Table, TableColumn, cells

    measured, found = compressed.measured, compressed.verdict
    headline = measured.headline
    ordered = measured.table.sort_values(
        ["bytes_per_item", "value"], ascending=[False, False], kind="stable"
    )
    rows = []
    for line in ordered.to_dict("records"):
        is_flat = line["family"] == "flat"
        lost = difference(line["difference"], line["low"], line["high"], rough=measured.rough)
        row = cells(
            line["title"],
            count(line["bytes_per_item"]),
            file_size(line["shared_bytes"]) if line["shared_bytes"] else "",
            "" if is_flat else f"{three_digits(line['times_smaller'])}x",
            number(line["value"]),
            "" if is_flat else lost,
        )
        chosen = line["codec"] in (found.smallest, found.smallest_sure)
        rows.append(Row(row, "run" if chosen else ""))
    titles = ("Bytes", "Shared", "Smaller", headline["title"], "Difference [95 %]")
    title = f"{run_name(compressed.run.folder)}: {headline['title']} against bytes an item"
    return Table(title, [TableColumn("Codec", "name"), *map(TableColumn, titles)], rows)


if __name__ == "__main__":
    main()
