"""What is meant by a name that there is not: a typo, an abbreviation, another library's word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

# Last parts of keys as torch, Lightning, timm and their examples have them, and as they are here.
# What abbreviates a name or holds its words needs no line: lr, wd, bs, optim, num_epochs.
SYNONYMS = {
    "epochs": "max_epochs",
    "gpu": "accelerator",
    "gpus": "devices",
    "amp": "precision",
    "fp16": "precision",
    "bf16": "precision",
    "half": "precision",
    "image_size": "size_px",
    "img_size": "size_px",
    "imgsz": "size_px",
    "input_size": "size_px",
    "resolution": "size_px",
    "accumulation_steps": "accumulate_grad_batches",
    "accum_iter": "accumulate_grad_batches",
    "clip_grad": "gradient_clip_val",
    "grad_clip": "gradient_clip_val",
    "max_steps": "max_epochs",
    "warmup_epochs": "warmup_fraction",
    "warmup_steps": "warmup_fraction",
    "workers": "num_workers",
    "eval_every": "evaluate_every_n_epochs",
    "val_every": "evaluate_every_n_epochs",
    "loss": "objective",
    "criterion": "objective",
    "arch": "model",
    "architecture": "model",
    "backbone": "model",
    "network": "model",
    "net": "model",
    "dataset": "data",
    "transform": "augmentation",
    "output_dir": "outputs",
    "save_dir": "outputs",
    "log_dir": "outputs",
    "root_dir": "outputs",
    "overwrite": "rerun",
    "force": "rerun",
    "pretrained_weights": "weights",
    "embed_dim": "embedding_dim",
    "latent_dim": "embedding_dim",
    "feature_dim": "embedding_dim",
    "top_k": "k",
    "topk": "k",
}
FILLERS = {"n", "num", "max", "total", "the", "of", "val", "every"}  # which tell no setting apart
ALIKE = 0.7  # of difflib: one letter of five, and no more, is another


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
    parent, _, tail = word.rpartition(".")
    tails = {choice: _plain(choice.rpartition(".")[2]) for choice in choices}
    plain = _plain(tail)
    siblings = [choice for choice in choices if parent and choice.rpartition(".")[0] == parent]
    if same := [choice for choice in choices if tails[choice] == plain]:
        return _closest(word, same)
    wanted = SYNONYMS.get(plain) or SYNONYMS.get(_core(plain)) or SYNONYMS.get(plain.rstrip("s"))
    if known := [choice for choice in choices if tails[choice] == wanted]:
        return _closest(word, known)
    for among in (siblings, list(choices)):
        close = difflib.get_close_matches(plain, [tails[one] for one in among], 1, ALIKE)
        if close:
            return _closest(word, [one for one in among if tails[one] == close[0]])
        if short := [one for one in among if _abbreviates(plain, tails[one])]:
            return _closest(word, short)
    close = difflib.get_close_matches(word, choices, 1, ALIKE)
    beside = [one for one in close if not siblings or one not in siblings]
    return beside[0] if beside else ""


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
    return max(choices, key=lambda one: difflib.SequenceMatcher(None, word, one).ratio())
