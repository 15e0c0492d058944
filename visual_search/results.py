"""A run's results: written into its folder, gathered into one summary, printed as tables."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning import Trainer
    from rich.table import Table

    from visual_search.runs import Run
    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.module import AutoencoderModule


def save_results(
    run: Run,
    settings: dict[str, Any],
    datamodule: CatalogDataModule,
    module: AutoencoderModule,
    trainer: Trainer,
    logged: Mapping[str, float],
) -> None:
    """Writes embeddings, index and numbers, and the settings with the numbers to the loggers."""
    from visual_search.retrieval.report import save_report
    from visual_search.training.evaluation import save_embeddings
    from visual_search.training.module import weights_fingerprint

    evaluation = module.evaluation
    assert evaluation is not None
    save_embeddings(evaluation, datamodule.catalog, run.folder / "embeddings")
    manifest = evaluation.index.save(
        run.folder / "index",
        model_hash=weights_fingerprint(module.model),
        preprocessing_hash=module.preprocessing.fingerprint(),
    )
    summary = dict(
        evaluation.report.summary,
        val_loss=logged.get("val/loss"),
        test_loss=logged.get("test/loss"),
        index={"bytes": manifest.num_bytes, "bytes_per_item": manifest.bytes_per_item},
        embedding_dim=module.model.embedding_dim,
        num_parameters=sum(p.numel() for p in module.parameters()),
        epochs=trainer.current_epoch,
        embedding_ms_per_item=1000 * evaluation.seconds_per_item,
        refused=[vars(item) for item in datamodule.catalog.refused],
        num_training=len(datamodule.rows("train")),
        device=str(module.device),
        precision=str(trainer.precision),
    )
    save_report(replace(evaluation.report, summary=summary), run.folder / "metrics")
    k = summary["k"]
    finals = {
        f"final/{name}": logged[name]
        for name in (f"test/map_at_{k}", f"test/macro_map_at_{k}", f"test/precision_at_{k}",
                     "test/loss", "val/loss")
        if name in logged
    }  # fmt: skip
    for logger in trainer.loggers:
        _log_settings(logger, _choices(settings, summary), finals)
        logger.save()


def _choices(settings: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """Gives what one compares runs by; the whole config lies in the run's folder."""
    return {
        "model": str(settings["model"]["_target_"]).rpartition(".")[2],
        "data": str(settings["data"]["_target_"]).rpartition(".")[2],
        "seed": settings["seed"],
        "epochs": summary["epochs"],
        "batch_size": settings["loader"]["batch_size"],
        "learning_rate": settings["training"]["learning_rate"],
        "training_pictures": summary["num_training"],
        "embedding_dim": summary["embedding_dim"],
        "precision": summary["precision"],
        "fit": settings["pictures"]["fit"],
    }


def _log_settings(logger: Any, choices: dict[str, Any], finals: dict[str, float]) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(choices, finals)  # shows in TensorBoard's HParams tab
    else:
        logger.log_hyperparams(choices)
        logger.log_metrics(finals)


def print_result(run: Run) -> None:
    """Prints a finished run: its table by category, where everything lies, how to look at it."""
    from rich.console import Console

    console = Console(highlight=False)
    summary = run.summary()
    if not summary:
        console.print(f"{run.folder} holds no numbers: the dry run passed.", markup=False)
        return
    console.print(category_table(run.folder, summary))
    k = summary["k"]
    console.print(
        f"mAP@{k}: {summary['definitions'][f'map_at_{k}']}\n"
        f"{summary['num_queries_scored']} of {summary['num_queries']} queries scored"
        f"{_left_out(summary)}; micro is the mean over queries, macro over categories.",
        markup=False,
    )
    facts = {
        "Test loss (MSE in -1..1)": _number(summary.get("test_loss")),
        "Embedding": f"{summary['embedding_dim']} values, "
        f"{summary['embedding_ms_per_item']:.1f} ms a picture on {summary['device']}",
        "Index": f"{summary['index']['bytes']:,} bytes, "
        f"{summary['index']['bytes_per_item']:,.0f} an item",
        "Trained": f"{summary['epochs']} epochs on {summary['num_training']:,} pictures, "
        f"{_duration(run.status().get('seconds'))}",
    }
    if summary["refused"]:
        facts["Left out"] = f"{len(summary['refused'])} bad items, listed in metrics/summary.json"
    for name, text in facts.items():
        console.print(f"{name + ':':<26}{text}", markup=False, soft_wrap=True)
    console.print("")
    for name, what in LEFT_BEHIND.items():
        if (run.folder / name).exists():
            console.print(f"  {run.folder / name}  {what}", markup=False, soft_wrap=True)
    if (run.folder / "tensorboard").exists():
        line = f"{_tensorboard()} --logdir {run.folder / 'tensorboard'}"
        console.print(f"\nLook at it:\n  {line}", markup=False, soft_wrap=True)


def _tensorboard() -> str:
    """Gives the command to type, also where no virtual environment is active."""
    if shutil.which("tensorboard"):
        return "tensorboard"
    program = Path(sys.executable).parent / "tensorboard"
    return str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program)


LEFT_BEHIND = {
    "checkpoints/last.ckpt": "the weights",
    "index": "the gallery's index, with its manifest",
    "embeddings": "embeddings of gallery and queries, and their items",
    "metrics/per_category.csv": "this table",
    "metrics/per_query.parquet": "every query with its neighbours",
    "metrics/summary.json": "the numbers and their definitions",
    "figures": "reconstructions, feature maps, projection, charts, search results",
}


def category_table(folder: Path, summary: Mapping[str, Any]) -> Table:
    """Gives the table of a run by category, micro and macro means last."""
    from rich.table import Table
    from rich.text import Text

    from visual_search.retrieval.report import load_report

    k = summary["k"]
    table = Table(title=f"Retrieval by category, test queries: {folder.parent.name}")
    table.add_column("Category")
    for column in ("In gallery", "Queries", f"mAP@{k}", f"Precision@{k}"):
        table.add_column(column, justify="right")
    report = load_report(folder / "metrics")
    for values in report.per_category.to_dict("records"):
        table.add_row(
            Text(str(values["category"])),
            f"{values['num_gallery']:,}",
            f"{values['num_queries_scored']:,}",
            _number(values[f"map_at_{k}"]),
            _number(values[f"precision_at_{k}"]),
        )
    table.add_section()
    for name in ("micro", "macro"):
        table.add_row(
            f"{name} mean",
            f"{summary['num_gallery']:,}",
            f"{summary['num_queries_scored']:,}",
            _number(summary[f"{name}_map_at_{k}"]),
            _number(summary[f"{name}_precision_at_{k}"]),
            style="bold",
        )
    return table


def comparison_table(runs: Sequence[Run]) -> Table:
    """Gives finished runs side by side, one a row, narrow enough for 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    finished = [(run, run.summary()) for run in runs]
    finished = [(run, summary) for run, summary in finished if summary]
    names = [run.folder.parent.name for run, _ in finished]
    depths = {summary["k"] for _, summary in finished}
    k = str(depths.pop()) if len(depths) == 1 else "k"
    title = "Runs side by side, test queries; micro means but for macro; time in min:s"
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1))
    table.add_column("Run", overflow="fold")
    for column in (f"mAP@{k}", "macro", f"P@{k}", "MSE", "Dim", "Index bytes", "Time"):
        table.add_column(column, justify="right", overflow="fold")
    for run, summary in finished:
        depth = summary["k"]
        name = run.folder.parent.name
        if names.count(name) > 1:
            name += f"/{run.folder.name}"
        if k == "k":
            name += f" k={depth}"
        table.add_row(
            Text(name),
            _number(summary[f"micro_map_at_{depth}"]),
            _number(summary[f"macro_map_at_{depth}"]),
            _number(summary[f"micro_precision_at_{depth}"]),
            _number(summary.get("test_loss")),
            f"{summary['embedding_dim']:,}",
            f"{summary['index']['bytes']:,}",
            "{}:{:02d}".format(*divmod(round(run.status()["seconds"]), 60)),
        )
    return table


def _left_out(summary: Mapping[str, Any]) -> str:
    num = summary["num_left_out"]
    return f" ({num} left out: nothing relevant in the gallery)" if num else ""


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
