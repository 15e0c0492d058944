"""What is meant by a name that there is not: a typo, an abbreviation, another library's word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

# Last parts of keys as torch, Lightning, timm and their examples have them, and as they are here.
# What abbreviates a name or holds its words needs no line: lr, wd, bs, optim, num_epochs.
SYNONYMS = {
    "epochs": "max_epochs",
    "max_steps": "max_epochs",
    "min_epochs": "max_epochs",
    "gpu": "accelerator",
    "device": "accelerator",
    "cuda": "accelerator",
    "cpu": "accelerator",
    "mps": "accelerator",
    "tpu": "accelerator",
    "gpus": "devices",
    "nodes": "num_nodes",
    "nnodes": "num_nodes",
    "num_processes": "devices",
    "amp": "precision",
    "fp16": "precision",
    "bf16": "precision",
    "half": "precision",
    "image_size": "size_px",
    "img_size": "size_px",
    "imgsz": "size_px",
    "input_size": "size_px",
    "crop_size": "size_px",
    "resize": "size_px",
    "resolution": "size_px",
    "accumulation_steps": "accumulate_grad_batches",
    "accum_iter": "accumulate_grad_batches",
    "clip_grad": "gradient_clip_val",
    "grad_clip": "gradient_clip_val",
    "warmup_epochs": "warmup_fraction",
    "warmup_steps": "warmup_fraction",
    "workers": "num_workers",
    "limit": "max_items_per_category",
    "num_samples": "max_items_per_category",
    "subset": "max_items_per_category",
    "save_every": "checkpoint_every_n_seconds",
    "eval_every": "evaluate_every_n_epochs",
    "val_every": "evaluate_every_n_epochs",
    "loss": "objective",
    "metric": "protocol",
    "metrics": "protocol",
    "criterion": "objective",
    "arch": "model",
    "architecture": "model",
    "backbone": "model",
    "network": "model",
    "net": "model",
    "dataset": "data",
    "transform": "augmentation",
    "val_size": "val_fraction",
    "val_split": "val_fraction",
    "val_ratio": "val_fraction",
    "validation_split": "val_fraction",
    "test_size": "test_fraction",
    "test_split": "test_fraction",
    "test_ratio": "test_fraction",
    "train_size": "test_fraction",
    "train_split": "test_fraction",
    "train_ratio": "test_fraction",
    "train_fraction": "test_fraction",
    "dir": "root",
    "folder": "root",
    "data_dir": "root",
    "data_root": "root",
    "image_dir": "root",
    "image_folder": "root",
    "csv": "path",
    "file": "path",
    "data_path": "path",
    "label": "category",
    "class": "category",
    "target": "category",
    "label_column": "category",
    "class_column": "category",
    "outdir": "outputs",
    "output_dir": "outputs",
    "save_dir": "outputs",
    "log_dir": "outputs",
    "root_dir": "outputs",
    "overwrite": "rerun",
    "force": "rerun",
    "pretrained_weights": "weights",
    "freeze": "frozen",
    "freeze_backbone": "frozen",
    "dim": "embedding_dim",
    "emb_dim": "embedding_dim",
    "embed_dim": "embedding_dim",
    "embedding_size": "embedding_dim",
    "latent_dim": "embedding_dim",
    "feature_dim": "embedding_dim",
    "tau": "temperature",
    "temp": "temperature",
    "top_k": "k",
    "topk": "k",
    "dry_run": "fast_dev_run",
    "umap": "projection",
    "tsne": "projection",
}
# What there is no setting for, since it is not needed or goes another way; beginnings of names.
INSTEAD = {
    ("early_stop", "patience", "monitor", "min_delta"): (
        "a run is not stopped early; a run of more trainer.max_epochs goes on from a finished one"
    ),
    ("resume", "ckpt", "checkpoint_path", "from_checkpoint", "auto_resume"): (
        "the same command goes on where its run was stopped"
    ),
    ("fold", "kfold", "n_fold", "num_fold", "n_split", "num_split", "cross_val"): (
        "there is one split, another with each split.seed: -m split.seed=0,1,2 measures several"
    ),
    ("num_class", "n_class", "class_names"): "the catalogue's categories are counted",
    ("dropout", "activation", "num_layers", "n_layers", "depth", "hidden_dim"): (
        "no network here has one; one of your own is a function and a YAML: docs/extending.md"
    ),
}
FILLERS = {"n", "num", "max", "total", "the", "of", "val", "every"}  # which tell no setting apart
OF_THE_PARENT = ("name", "type", "kind")  # optimizer.name is the optimizer
ALIKE = 0.7  # of difflib: one letter of five, and no more, is another
ALIKE_ELSEWHERE = 0.75  # dropout is 0.73 like root


def meant(word: str, choices: Sequence[str]) -> str:
    """Returns the choice that was meant by a word or a dotted key; empty if none is near.

    A key of the same last part comes first, then the word of another library; then, of the same
    parent before the rest, what a typo or an abbreviation by initials or a beginning is near to.

    >>> keys = ["seed", "loader.batch_size", "training.learning_rate", "trainer.max_epochs"]
    >>> [meant(word, keys) for word in ("training.lr", "batch_size", "epochs", "lodaer.batch_siz")]
    ['training.learning_rate', 'loader.batch_size', 'trainer.max_epochs', 'loader.batch_size']
    >>> meant("data.on_bad_item", ["data.background_noise", "data.seed"])
    ''
    """
    return next((found for way in WAYS if (found := way(word, choices))), "")


def same(word: str, choices: Sequence[str]) -> str:
    """Returns the choice whose last part is the word's, the least deep one; empty if none is."""
    parent, _, tail = word.rpartition(".")
    if tail in OF_THE_PARENT and parent and parent not in choices:
        return meant(parent, choices)
    if not parent and tail in SYNONYMS and (found := translated(word, choices)):
        return found  # device is the trainer's before the index's
    alike = [choice for choice in choices if _tail(choice) == _plain(tail)]
    return _closest(word, [choice for choice in alike if choice.count(".") < 2])


def translated(word: str, choices: Sequence[str]) -> str:
    """Returns the choice that another library calls so; empty if none is known to."""
    plain = _plain(word.rpartition(".")[2])
    tries = (plain, _core(plain), plain.rstrip("s"), f"{plain}s")
    wanted = next((SYNONYMS[one] for one in tries if one in SYNONYMS), None)
    return _closest(word, [choice for choice in choices if _tail(choice) == wanted])


def alike_beside(word: str, choices: Sequence[str]) -> str:
    """Returns the choice of the same parent that a typo or an abbreviation is near to, or empty."""
    parent = word.rpartition(".")[0]
    siblings = [one for one in choices if parent and one.rpartition(".")[0] == parent]
    return _alike(word, siblings, ALIKE)


def alike(word: str, choices: Sequence[str]) -> str:
    """Returns the choice that a typo or an abbreviation is near to, wherever it is, or empty."""
    parent = word.rpartition(".")[0]
    elsewhere = [
        one for one in choices if not parent or parent not in (one, one.rpartition(".")[0])
    ]
    close = difflib.get_close_matches(word, elsewhere, 1, ALIKE_ELSEWHERE)
    return _alike(word, elsewhere, ALIKE_ELSEWHERE) or (close[0] if close else "")


def holds(word: str, choice: str) -> bool:
    """Whether a choice's last part has all words of another, or one letter else."""
    plain, tail = _plain(word.rpartition(".")[2]), _tail(choice)
    ratio = difflib.SequenceMatcher(None, plain, tail).ratio()
    return set(_words(plain)) <= set(_words(tail)) or (len(plain) > 5 and ratio > 0.8)


WAYS = (same, translated, alike_beside, alike)


def instead(word: str) -> str:
    """Returns how what is meant by a name goes without a setting; empty if nothing is known."""
    plain = _plain(word.rpartition(".")[2])
    return next((said for starts, said in INSTEAD.items() if plain.startswith(starts)), "")


def _alike(word: str, choices: Sequence[str], bar: float) -> str:
    plain = _plain(word.rpartition(".")[2])
    close = difflib.get_close_matches(plain, [_tail(one) for one in choices], 1, bar)
    if close:
        return _closest(word, [one for one in choices if _tail(one) == close[0]])
    return _closest(word, [one for one in choices if _abbreviates(plain, _tail(one))])


def _tail(choice: str) -> str:
    return _plain(choice.rpartition(".")[2])


def _plain(word: str) -> str:
    """The word as our own are written: ``batchSize`` and ``batch-size`` are ``batch_size``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).replace("-", "_").lower()


def _words(name: str) -> list[str]:
    return [word for word in name.split("_") if word]


def _core(name: str) -> str:
    return "_".join(word for word in _words(name) if word not in FILLERS)


def _abbreviates(short: str, name: str) -> bool:
    """Whether it is the initials of a name, its beginning, or holds the words that matter in it."""
    words = _words(name)
    if len(words) > 1 and len(short) > 1 and short == "".join(word[0] for word in words):
        return True
    if len(short) >= 3 and name.startswith(short):
        return True
    ours, theirs = set(_words(_core(name))), set(_words(_core(short)))
    return bool(ours and theirs) and (ours <= theirs or theirs <= ours) and len(short) > 3


def _closest(word: str, choices: Iterable[str]) -> str:
    """Returns the least deep one, of equals the one most like the word; empty of none."""
    likeness = difflib.SequenceMatcher(None, b=word)

    def rank(choice: str) -> tuple[int, float]:
        likeness.set_seq1(choice)
        return -choice.count("."), likeness.ratio()

    return max(choices, key=rank, default="")
