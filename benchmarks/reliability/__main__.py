"""What the product survives: kills, damaged pictures, hostile files, many requests beside writers.

    python -m benchmarks.reliability kills [--number 200] [--only "index add"]
    python -m benchmarks.reliability table

Each verb tries so many and writes what became of them into ``benchmarks/results/reliability.json``;
``table`` writes them between the markers of ``docs/reliability.md``, which says what counts as
survived. Run from the project's folder. ``--only`` tries some kinds alone, of files the parts
bundles, runs or others; or repeats a kill that a loss names as its point, which writes nothing. The
status is 1 where something was lost.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"
Rows = list[dict[str, Any]]


def kills(given: argparse.Namespace) -> Rows:
    from benchmarks.reliability.kills import run_kills

    return run_kills(given.number, given.seed, given.only)


def pictures(given: argparse.Namespace) -> Rows:
    from benchmarks.reliability.pictures import run_pictures

    return run_pictures(given.number, given.seed)


def files(given: argparse.Namespace) -> Rows:
    from benchmarks.reliability.hostile import run_files

    return run_files(given.number, given.only)


def requests(given: argparse.Namespace) -> Rows:
    from benchmarks.reliability.requests import run_requests

    return run_requests(given.number, given.seed)


PARTS: dict[str, tuple[int, Callable[[argparse.Namespace], Rows]]] = {
    "kills": (200, kills),
    "pictures": (10_000, pictures),
    "files": (0, files),
    "requests": (5_000, requests),
}


def keep(part: str, rows: Rows, seed: int) -> None:
    """Puts a part's rows among the results, in the place of those of the same kinds."""
    from visual_search.runs.machine import processor_facts
    from visual_search.runs.run import environment

    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    facts = processor_facts() | {"packages": environment()["packages"]}
    tried = {row["kind"] for row in rows}
    before = [row for row in results.get(part, {"rows": []})["rows"] if row["kind"] not in tried]
    results[part] = {"seed": seed, "rows": [*before, *rows], "environment": facts}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "benchmarks.reliability", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, (number, _) in PARTS.items():
        verb = verbs.add_parser(name)
        verb.add_argument("--number", type=int, default=number)
        verb.add_argument("--seed", type=int, default=0)
        verb.add_argument("--only", action="append", default=[], metavar="PART")
    verbs.add_parser("table")
    given = parser.parse_args(arguments)
    if given.verb == "table":
        from benchmarks.reliability.tables import write_table

        write_table(RESULTS, ROOT / "docs" / "reliability.md")
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = PARTS[given.verb][1](given)
    for row in rows:
        print(f"{row['kind']:30} {row['tried']:6,} tried, {row['lost']:4,} lost")
        for loss in row["losses"][:20]:
            print(f"    {loss}")
    if not any(" @ " in one for one in given.only):
        keep(given.verb, rows, given.seed)
    return int(any(row["lost"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
