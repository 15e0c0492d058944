"""Galleries that are hard to search, the slow search that all others are compared with."""

from __future__ import annotations

import numpy as np

DIM = 16


def noise(count: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Draws embeddings around 30 centres that are the same for every seed."""
    centres = 3 * np.random.default_rng(99).standard_normal((30, DIM))
    rng = np.random.default_rng(seed)
    drawn = centres[rng.integers(0, 30, count)] + rng.standard_normal((count, DIM))
    return drawn.astype(np.float32)


GALLERY, QUERIES = clustered(1500), clustered(40, seed=1)

HARD_GALLERIES = {
    "noise": lambda: noise(300, 16),
    "one-dimension": lambda: noise(300, 1),
    "wide": lambda: noise(120, 2048),
    # FAISS's distances are lost behind the offset: 1000^2 * 32 = 3e7, rounded to steps of 2.
    "large-offset": lambda: noise(300, 32) + np.float32(1000),
    "tiny-differences": lambda: (1 + 1e-6 * noise(300, 32)).astype(np.float32),
    "everything-the-same": lambda: np.full((400, 8), 0.3, dtype=np.float32),
    "mostly-the-same": lambda: np.concatenate([np.zeros((300, 8), np.float32), noise(100, 8)]),
    "few-values": lambda: np.random.default_rng(0).integers(0, 2, (400, 6)).astype(np.float32),
    "one-huge-outlier": lambda: np.concatenate([noise(300, 8), np.full((1, 8), 1e6, np.float32)]),
    "tight-far-clusters": lambda: (
        np.repeat(1000 * noise(6, 8), 60, axis=0) + 1e-3 * noise(360, 8, seed=1)
    ).astype(np.float32),
    "underflowing-squares": lambda: (1e-25 * noise(200, 8)).astype(np.float32),
    "nearly-overflowing-squares": lambda: (1e17 * noise(200, 8)).astype(np.float32),
}


def brute_force(gallery, queries, k, allowed=None):
    """Rows and squared distances, [Q, k]: by subtraction, in Python's order of (distance, row)."""
    answers = []
    for query in queries.astype(np.float64):
        distances = ((query - gallery.astype(np.float64)) ** 2).sum(axis=1).tolist()
        pairs = [(d, row) for row, d in enumerate(distances) if allowed is None or allowed[row]]
        answers.append(sorted(pairs)[:k])
    rows = np.array([[row for _, row in answer] for answer in answers])
    return rows, np.array([[distance for distance, _ in answer] for answer in answers])


def recall_of(rows: np.ndarray, expected: np.ndarray) -> float:
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rows, expected, strict=True)])


class PlainStore:
    """A store that only takes and gives blocks, as another implementation may."""

    def __init__(self, embeddings: np.ndarray) -> None:
        self.embeddings, self.dim = embeddings, embeddings.shape[1]

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows):
        return self.embeddings[rows]

    def blocks(self, size):
        for start in range(0, len(self), size):
            yield start, self.embeddings[start : start + size]
