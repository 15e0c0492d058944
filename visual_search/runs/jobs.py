"""What a job of a multirun leaves on disk: a record that any process of the sweep can read."""

from __future__ import annotations

import csv
import io
import math
import os
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from visual_search.config.builders import ConfigError
from visual_search.reading import DamagedFileError, read_json, read_text
from visual_search.wording import number

if TYPE_CHECKING:
    from visual_search.runs.finished import Measured
    from visual_search.runs.run import Run

RECORD_FILE, OUTPUT_FILE = "job.json", "output.txt"
# Set while a job is only to say whether its run is finished.
LOOK = "VISUAL_SEARCH_LOOK"

# In what the jobs of a sweep differ: what its own process tells its workers.
SWEPT_KEYS = "VISUAL_SEARCH_SWEPT_KEYS"

JobState = Literal["running", "finished", "failed", "interrupted"]
Began = Literal["new", "goes on", "finished"]


@dataclass
class Record:
    """A job as its file holds it.

    Attributes:
        number: Counted from 0 in the order of the sweep.
        overrides: What was given for this job.
        state: How it stands; a job that was killed stays ``running``.
        kind: A trained ``run``, or an ``evaluation`` of one.
        run: The folder of the run or of the evaluation, empty before it is known.
        began: How the job found its folder: new, with a checkpoint to go on from, or finished.
        value: Headline of the newest measurement on the validation queries.
        value_name: Its name, as ``val/map_at_5``.
        error: What ended a failed job.
        pid: The process that works or worked on it.
        num_threads: Of torch in that process; 0 where torch was not loaded.
        since: When the state was written, in UTC.
    """

    number: int
    overrides: list[str] = field(default_factory=list)
    state: JobState = "running"
    kind: Literal["run", "evaluation"] = "run"
    run: str = ""
    began: Began = "new"
    value: float | None = None
    value_name: str = ""
    error: str = ""
    pid: int = 0
    num_threads: int = 0
    since: str = ""


class LeftToDoError(Exception):
    """A job was only to be looked at, and its run is not finished."""


class Job:
    """A job of a multirun, to be filled in; outside of one it is recorded nowhere.

    Args:
        path: Of the record; None outside a multirun.
        record: What is known of it.

    Attributes:
        measured: Set by a job that evaluates.
        is_look: Whether it is only to say that its run is finished.
    """

    def __init__(self, path: Path | None = None, record: Record | None = None) -> None:
        self.path = path
        self.record = record or Record(number=0)
        self.measured: Measured | None = None
        self.is_look = False

    @property
    def value(self) -> float | None:
        """What a sweeper maximises; None outside a multirun."""
        return self.record.value

    def opened(self, run: Run) -> None:
        """Notes the run's folder and how it was found, before the work on it begins."""
        self.record.run = str(run.folder)
        if run.state == "finished":
            self.record.began = "finished"
        else:
            self.record.began = "goes on" if run.checkpoint.is_file() else "new"
        self.save()

    def finish(self, *, needs_value: bool) -> None:
        """Notes the results, once there are some.

        Raises:
            ConfigError: A value is needed, and the run was never measured on validation queries.
        """
        from visual_search.runs.run import Run

        if self.measured is not None:
            self.record.kind = "evaluation"
            self.record.run = str(self.measured.run.folder)
            self.record.began = "new" if self.measured.is_new else "finished"
        elif self.record.run:
            run = Run(Path(self.record.run))
            self.record.value_name, self.record.value = validation_headline(run)
            if needs_value and self.record.value is None:
                raise ConfigError(
                    f"{run.folder} has no {self.record.value_name} in metrics/history.csv; "
                    "expected a measurement on the validation queries, by which the sweeper "
                    "chooses; set training.evaluate_every_n_epochs to trainer.max_epochs or less, "
                    "and split.val_fraction above 0"
                )
        self.record.state = "finished"

    def save(self) -> None:
        """Writes the record atomically, where there is a place for it."""
        if self.path is None:
            return
        from visual_search.runs.run import write_json

        torch = sys.modules.get("torch")
        self.record.pid = os.getpid()
        self.record.num_threads = torch.get_num_threads() if torch is not None else 0
        self.record.since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self.path, asdict(self.record))


def line_of(record: Record) -> str:
    """Returns a job that has ended as it is printed: how, what it alone was given, its run."""
    keys = os.environ.get(SWEPT_KEYS, "").split()
    name = " ".join(one for one in record.overrides if one.partition("=")[0] in keys)
    value = f", {record.value_name} {number(record.value)}" if record.value is not None else ""
    return f"Job {record.number} {record.state}: {name}{value}, {record.run}"


def read_records(sweep: Path) -> list[Record]:
    """Returns the records in a sweep's folder, in the order of the jobs.

    One that cannot be read is that of a failed job, whose error says so.
    """
    found = [(path, path.parent.name) for path in sweep.glob(f"*/{RECORD_FILE}")]
    records = [_read_record(path, int(name)) for path, name in found if name.isdecimal()]
    return sorted(records, key=lambda record: record.number)


def _read_record(path: Path, number: int) -> Record:
    from pydantic import TypeAdapter, ValidationError

    try:
        content = read_json(path, "the record of a job: start the sweep again")
        return TypeAdapter(Record).validate_python({**content, "number": number})
    except FileNotFoundError as error:
        return Record(number, state="failed", error=str(error))
    except ValidationError as error:
        wrong = error.errors()[0]
        reason = f"{path}: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
        return Record(number, state="failed", error=reason)
    except ValueError as error:
        return Record(number, state="failed", error=str(error))


def validation_headline(run: Run) -> tuple[str, float | None]:
    """Returns name and value of the headline at the newest measurement on the validation queries.

    The test queries have no part in it: hyper-parameters that are chosen on them make the number
    on them too good.

    Returns:
        Such as ``("val/map_at_5", 0.61)``; the value is None where nothing was measured.

    Raises:
        DamagedFileError: The summary or ``metrics/history.csv`` cannot be read.
    """
    from visual_search.retrieval.floor_comparison import headline_statistic

    headline = run.summary().get("headline")
    if headline is None:
        return "val", None
    macro = headline_statistic(headline["title"]) == "macro"
    name = f"val/{'macro_' * macro}{headline['mean']}"
    path = run.folder / "metrics" / "history.csv"
    expected = "the metrics of each epoch: train the run again with rerun=true"
    try:
        rows = csv.DictReader(io.StringIO(read_text(path, expected), newline=""))
        values = [float(row[name]) for row in rows if row.get(name)]
    except FileNotFoundError:
        return name, None
    except DamagedFileError:
        raise
    except (ValueError, csv.Error) as error:
        raise DamagedFileError(path, str(error), expected) from error
    values = [value for value in values if math.isfinite(value)]
    return name, values[-1] if values else None


def told_apart(records: list[Record]) -> list[str]:
    """Returns each job's overrides without those that all jobs have.

    >>> told_apart([Record(0, ["a=1", "seed=1"]), Record(1, ["a=1", "seed=2"])])
    ['seed=1', 'seed=2']
    >>> told_apart([Record(0, ["a=1", "seed=1"])])
    ['a=1 seed=1']
    """
    shared = set.intersection(*(set(record.overrides) for record in records)) if records else set()
    if len(records) == 1:
        shared = set()
    return [
        " ".join(one for one in record.overrides if one not in shared) or "(the same overrides)"
        for record in records
    ]


STOP_FILE = "stopped"  # in the sweep's folder: no further job is to start
