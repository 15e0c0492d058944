"""PCA of a gallery's features as a part of the network: fitted, kept, applied on any device."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from visual_search.models.principal_components import principal_components

SHRINKAGE = 1.0  # of the mean variance between pairs, added to each: little of it is known well
_BLOCK = 1_024  # embeddings compared with all others at once


class PcaWhitening(nn.Module):
    """Projects features onto the gallery's first principal components.

    Args:
        num_features: Width F of the features.
        num_components: The most components D to keep; None keeps the features.
        normalize: Scale to length 1: before PCA where ``before``, and at the end.
        before: See ``normalize``.
        whiten: Component i is divided by its standard deviation to this power.
        by_pairs: That standard deviation is of the differences between pairs; see `refit`.
    """

    def __init__(
        self,
        num_features: int,
        num_components: int | None,
        *,
        normalize: bool = False,
        before: bool = True,
        whiten: float = 0.0,
        by_pairs: bool = False,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.num_components = num_components
        self.normalize = normalize
        self.before = before
        self.whiten = whiten
        self.by_pairs = by_pairs
        self._basis: NDArray[np.float64] | None = None  # between `fit` and `refit`
        # Not part of a checkpoint: fitted anew for every gallery, and saved beside its index.
        self.register_buffer("mean", None, persistent=False)
        self.register_buffer("components", None, persistent=False)
        self.register_buffer("place", torch.empty(0), persistent=False)  # knows the device
        self.place: Tensor
        self.mean: Tensor | None
        self.components: Tensor | None

    @property
    def dim(self) -> int:
        """Width D of what comes out; before the fit the most that it can be."""
        if self.components is not None:
            return int(self.components.shape[0])
        return min(self.num_components or self.num_features, self.num_features)

    @property
    def is_fitted(self) -> bool:
        """False where PCA still has to be fitted."""
        return self.num_components is None or self.components is not None

    def fit(self, features: NDArray[np.float32]) -> None:
        """Fits PCA on features ``[n, F]``; does nothing where none is asked for.

        The solver is exact and depends on no seed. With ``by_pairs`` nothing is whitened before
        `refit` knows what ought to be alike.
        """
        if self.num_components is None:
            return
        described = self._described(features)
        mean = described.mean(axis=0)
        if self.by_pairs:
            self._basis = principal_components(described, 2 * self.num_components)  # [E, F]
            components = self._basis[: self.num_components]
        else:
            components = principal_components(described, self.num_components)  # [D, F]
            if self.whiten:
                spread = ((described - mean) @ components.T).std(axis=0)  # [D]
                # All 0 only where the gallery does not vary at all; then nothing is to be scaled.
                scale = np.where(spread > 0, spread, 1.0) ** self.whiten
                components = components / scale[:, None]
        self.set(mean.astype(np.float32), components.astype(np.float32))

    def refit(self, features: NDArray[np.float32], pairs: NDArray[np.int64]) -> None:
        """Fits anew so that the two of a pair differ little, after `fit` with the same features.

        Relevant component analysis (Bar-Hillel et al., "Learning a Mahalanobis metric from
        equivalence constraints", JMLR 2005), regularised, on twice as many principal components as
        are asked for; PCA comes after it. Without a pair, or where all pairs are the same, the
        first fit stays.

        Args:
            features: ``[n, F]``.
            pairs: Rows of features that ought to be alike, ``[m, 2]``.
        """
        if self.num_components is None or self._basis is None:
            return
        basis, self._basis = self._basis, None
        described = self._described(features)
        mean = described.mean(axis=0)
        reduced = (described - mean) @ basis.T  # [n, E]
        apart = reduced[pairs[:, 0]] - reduced[pairs[:, 1]]
        if not apart.any():
            return
        within, directions = np.linalg.eigh(apart.T @ apart / len(apart))
        within = np.maximum(within, 0)
        within += SHRINKAGE * within.mean()
        # Only ratios matter: the embedding keeps the scale that it had.
        whitening = directions * (within / within.mean()) ** (-self.whiten / 2)  # [E, E]
        components = principal_components(reduced @ whitening, self.num_components)  # [D, E]
        components = components @ whitening.T @ basis
        self.set(mean.astype(np.float32), components.astype(np.float32))

    def _described(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        if self.normalize and self.before:
            features = F.normalize(torch.from_numpy(features), dim=1).numpy()
        return features.astype(np.float64)

    def set(self, mean: NDArray[np.float32], components: NDArray[np.float32]) -> None:
        """Takes a projection that was fitted before.

        Raises:
            ValueError: It belongs to another width or to more components.
        """
        fits = mean.shape == (self.num_features,) and components.shape[1:] == mean.shape
        if not fits or len(components) > (self.num_components or 0):
            raise ValueError(
                f"got components of shape {components.shape}, expected at most "
                f"{self.num_components} x {self.num_features}; it belongs to another run: train "
                "again with rerun=true"
            )
        self.mean = torch.from_numpy(mean).to(self.place.device)
        self.components = torch.from_numpy(components).to(self.place.device)

    def forward(self, features: Tensor) -> Tensor:
        """Returns ``[B, D] float32`` of features ``[B, F] float32``; has to be fitted."""
        found = features
        if self.num_components is not None:
            assert self.mean is not None
            assert self.components is not None
            if self.normalize and self.before:
                found = F.normalize(found, dim=1)
            with torch.autocast(found.device.type, enabled=False):
                found = (found - self.mean) @ self.components.T
        return F.normalize(found, dim=1) if self.normalize else found


def mutual_pairs(embeddings: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Returns all pairs of which each is among the other's k nearest by the cosine, ``[m, 2]``.

    Each pair comes both ways. Fewer than k are looked at where there are not so many.

    Args:
        embeddings: ``[n, D]``.
        k: At least 1.

    Example:
        >>> corners = np.array([[1, 0], [1, 0.1], [0, 1], [0.5, 1]], dtype=np.float32)
        >>> mutual_pairs(corners, 1).tolist()
        [[0, 1], [1, 0], [2, 3], [3, 2]]
    """
    unit = F.normalize(torch.from_numpy(embeddings), dim=1)
    num, k = len(unit), min(k, len(unit) - 1)
    if k < 1:
        return np.empty((0, 2), np.int64)
    nearest = []
    for start in range(0, num, _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit.T
        own = torch.arange(start, start + len(cosines))
        cosines[torch.arange(len(cosines)), own] = -torch.inf
        nearest.append(cosines.topk(k, dim=1).indices)
    first = torch.arange(num).repeat_interleave(k)
    second = torch.cat(nearest).flatten()
    found = torch.isin(first * num + second, second * num + first)
    return torch.stack([first[found], second[found]], dim=1).numpy()
