"""From what an encoder computes to the embedding that is indexed: layer, pooling, PCA, length."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from visual_search.atomic import atomic_path
from visual_search.models.encoder import Encoder, evaluating
from visual_search.models.handcrafted import (
    Beside,
    DescriptorProjection,
    check_beside,
    describe_beside,
)
from visual_search.models.pca_whitening import PcaWhitening, mutual_pairs

Pool = Literal["flatten", "average", "max", "gem"]
WhitenBy = Literal["variance", "neighbours"]

NUM_NEIGHBOURS = 10  # that `whiten_by=neighbours` looks at

MAX_FIT_ITEMS = 16_384  # that PCA is fitted on, spread evenly over the gallery
GEM_POWER = 3.0  # of Radenović et al. (2018)
_BLOCK = 16_384  # items projected at once


@dataclass(frozen=True)
class EmbeddingSettings:
    """Which of a network's values are indexed, and what happens to them first.

    Attributes:
        layer: Name of an encoder layer, as in the feature maps; None takes what ``encode`` gives.
        pool: How a layer's ``[C, H, W]`` become a row: ``flatten`` keeps all of it, ``average``,
            ``max`` and ``gem`` (generalised mean, power 3; Radenović et al. 2018, arXiv
            1711.02512) give C values.
        mirror: Take the mean of the values of a picture and of its mirror image: which way a
            product faces says nothing. Embedding takes twice as long.
        normalize: Scale embeddings to length 1, so that squared distances rank as cosines do; with
            PCA before it and after it.
        pca: Number of principal components of the gallery to keep; None leaves the values alone.
            Fewer come out where the gallery varies in fewer directions.
        whiten: With PCA: component i is divided by its standard deviation to this power. 0 keeps
            the scales, 1 makes all components equal, 0.5 lies between.
        whiten_by: Whose standard deviation whitening divides by: ``variance``, of the gallery;
            ``neighbours``, of the differences between mutual nearest neighbours in the gallery, by
            the embedding as it is without whitening (relevant component analysis, with neighbours
            for what is known to be alike). What varies among alike items counts less then.
        beside: A descriptor that learns nothing and stands beside the network's values; see
            `visual_search.models.handcrafted.describe_beside`. Needs ``normalize``: both sides have
            length 1, so that the weight says what each counts.
        beside_pca: Principal components of the gallery's descriptions to keep.
        beside_weight: What the descriptor's distance counts, to the power of a half, when the
            network's counts 1.

    Raises:
        ValueError: A value is outside its range, or needs one that is not set.
    """

    layer: str | None = None
    pool: Pool = "flatten"
    mirror: bool = False
    normalize: bool = False
    pca: int | None = None
    whiten: float = 0.0
    whiten_by: WhitenBy = "variance"
    beside: Beside | None = None
    beside_pca: int = 254
    beside_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.pool not in get_args(Pool):
            raise ValueError(
                f"got pool {self.pool!r}, expected one of {', '.join(get_args(Pool))}; set "
                "embedding.pool"
            )
        if self.layer is None and self.pool != "flatten":
            raise ValueError(
                f"got pool {self.pool!r} without a layer; the network's own embedding is a row "
                "already: name embedding.layer, or set embedding.pool=flatten"
            )
        if self.pca is not None and self.pca < 1:
            raise ValueError(f"got pca {self.pca}, expected at least 1; set embedding.pca, or null")
        if not 0 <= self.whiten <= 1:
            raise ValueError(f"got whiten {self.whiten}, expected 0..1; set embedding.whiten")
        if self.whiten and self.pca is None:
            raise ValueError(
                f"got whiten {self.whiten} without pca; whitening scales principal components: set "
                "embedding.pca too"
            )
        if self.whiten_by not in get_args(WhitenBy):
            raise ValueError(
                f"got whiten_by {self.whiten_by!r}, expected one of "
                f"{', '.join(get_args(WhitenBy))}; set embedding.whiten_by"
            )
        if self.whiten_by == "neighbours" and not (self.whiten and self.normalize):
            raise ValueError(
                f"got whiten_by neighbours with whiten {self.whiten} and normalize "
                f"{self.normalize}; neighbours are near by the cosine, and whitening has to have a "
                "power: set embedding.whiten=1 and embedding.normalize=true"
            )
        if self.beside is None:
            return
        check_beside(self.beside)
        if not self.normalize:
            raise ValueError(
                f"got beside {self.beside!r} without normalize; the network's values need a length "
                "to be weighed against: set embedding.normalize=true"
            )
        if self.beside_pca < 1 or not 0 < self.beside_weight < 1e3:
            raise ValueError(
                f"got beside_pca {self.beside_pca} and beside_weight {self.beside_weight}, "
                "expected at least 1 and 0..1000, not 0; set embedding.beside_pca and "
                "embedding.beside_weight"
            )


class EmbeddingHead(nn.Module):
    """Makes embeddings of what an encoder computes.

    With PCA it has to be fitted on the gallery before it can be used.

    Args:
        encoder: The network that it belongs to.
        settings: What to take and what to do to it.

    Attributes:
        settings: As given.
        num_features: Width F of what is taken of a picture: the network's values, then those of
            the descriptor beside it.
        num_learned: Width of the network's values alone.

    Raises:
        ValueError: The encoder has no layer of that name.
    """

    def __init__(self, encoder: Encoder, settings: EmbeddingSettings | None = None) -> None:
        super().__init__()
        self.settings = asked = settings or EmbeddingSettings()
        self.num_learned = self._measure(encoder)
        by_pairs = asked.whiten_by == "neighbours"
        self.learned = PcaWhitening(
            self.num_learned,
            asked.pca,
            normalize=asked.normalize,
            whiten=asked.whiten,
            by_pairs=by_pairs,
        )
        self.described: DescriptorProjection | None = None
        if asked.beside is not None:
            whiten = asked.whiten if by_pairs else 0.0
            self.described = DescriptorProjection(asked.beside, asked.beside_pca, whiten)
        self.num_features = self.num_learned + (
            self.described.num_features if self.described else 0
        )

    def _measure(self, encoder: Encoder) -> int:
        if self.settings.layer is None:
            return encoder.embedding_dim
        side = encoder.image_size_px
        device = next(encoder.parameters()).device
        with evaluating(encoder):
            layers = encoder.layers(torch.zeros(1, 3, side, side, device=device))
        if self.settings.layer not in layers:
            raise ValueError(
                f"got the layer {self.settings.layer!r}, expected one of {', '.join(layers)}; set "
                "embedding.layer, or null for the network's own embedding"
            )
        return pooled(layers[self.settings.layer], self.settings.pool).shape[1]

    @property
    def embedding_dim(self) -> int:
        """Width D of the embedding; before PCA is fitted the most that it can be."""
        return self.learned.dim + (self.described.dim if self.described else 0)

    @property
    def is_fitted(self) -> bool:
        """False where PCA still has to be fitted."""
        return all(part.is_fitted for part in self._projections().values())

    def _projections(self) -> dict[str, PcaWhitening]:
        """Returns the parts that are fitted, by the prefix of their arrays' names."""
        found = {"": self.learned}
        return found if self.described is None else found | {"beside_": self.described.gradients}

    def features(self, encoder: Encoder, images: Tensor, encoded: Tensor | None = None) -> Tensor:
        """Returns what is taken, ``[B, F] float32``, of pictures in -1..1.

        Args:
            encoder: The network.
            images: ``[B, 3, S, S]``.
            encoded: What ``encoder.encode`` gave of them, where it was asked already.
        """
        found = self.network_values(encoder, images, encoded)
        if self.settings.mirror:
            found = (found + self.network_values(encoder, images.flip(3))) / 2
        return self.with_descriptor(found, images)

    def network_values(
        self, encoder: Encoder, images: Tensor, encoded: Tensor | None = None
    ) -> Tensor:
        """Returns what is taken of the network alone, ``[B, F] float32``; see `features`."""
        if self.settings.layer is not None:
            layers = encoder.layers(images)
            return pooled(layers[self.settings.layer].float(), self.settings.pool)
        return (encoder.encode(images) if encoded is None else encoded).float()

    def with_descriptor(self, values: Tensor, images: Tensor) -> Tensor:
        """Returns the network's values and those of the descriptor, where there is one."""
        if self.settings.beside is None:
            return values
        return torch.cat([values, describe_beside(self.settings.beside, images)], dim=1)

    def fit(self, features: NDArray[np.float32]) -> None:
        """Fits PCA on the gallery's features ``[N, F]``, or on `MAX_FIT_ITEMS` of them.

        Does nothing where no PCA is asked for. The solver is exact and depends on no seed.

        Raises:
            ValueError: Another width, or no item.
        """
        if all(part.num_components is None for part in self._projections().values()):
            return
        if features.ndim != 2 or not len(features) or features.shape[1] != self.num_features:
            raise ValueError(
                f"got features of shape {features.shape}, expected [N, {self.num_features}] with N "
                "of at least 1; fit on what `features` gives"
            )
        chosen = features[rows_to_fit(len(features))]
        learned, beside = chosen[:, : self.num_learned], chosen[:, self.num_learned :]
        self.learned.fit(learned)
        if self.described is not None:
            self.described.fit(beside)
        if self.settings.whiten_by == "neighbours":
            pairs = mutual_pairs(self.embed(chosen), NUM_NEIGHBOURS)
            self.learned.refit(learned, pairs)
            if self.described is not None:
                self.described.refit(beside, pairs)

    def forward(self, features: Tensor) -> Tensor:
        """Returns embeddings ``[B, D] float32`` of features ``[B, F]``.

        Raises:
            RuntimeError: PCA is asked for and was not fitted.
        """
        if not self.is_fitted:
            raise RuntimeError(
                f"PCA was not fitted (embedding.pca={self.settings.pca}, embedding.beside="
                f"{self.settings.beside}); expected `fit` with the "
                "gallery's features, or `load`, before the first embedding"
            )
        found = features.float()
        if self.described is None:
            alone: Tensor = self.learned(found)
            return alone
        learned = self.learned(found[:, : self.num_learned])
        beside = self.described(found[:, self.num_learned :]) * self.settings.beside_weight
        return F.normalize(torch.cat([learned, beside], dim=1), dim=1)

    def embed(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns embeddings ``[n, D]`` of features ``[n, F]``, both NumPy, in blocks."""
        if self.settings.pca is None and not self.settings.normalize:
            return features
        parts = [np.empty((0, self.embedding_dim), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(features), _BLOCK):
                block = torch.from_numpy(features[start : start + _BLOCK])
                parts.append(self(block.to(self.learned.place.device)).cpu().numpy())
        return np.concatenate(parts)

    def fingerprint(self) -> str:
        """Returns a SHA-256 (hex) of the settings and of the fitted projection."""
        chosen = asdict(self.settings)
        if self.settings.beside is None:  # as it was before there were descriptors
            chosen = {name: value for name, value in chosen.items() if "beside" not in name}
        if self.settings.whiten_by == "variance":
            del chosen["whiten_by"]
        if not self.settings.mirror:
            del chosen["mirror"]
        digest = hashlib.sha256(repr(sorted(chosen.items())).encode())
        for part in self._projections().values():
            for value in (part.mean, part.components):
                if value is not None:
                    digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def fitted(self) -> dict[str, Tensor]:
        """Returns what was fitted, by the names that `save` writes; empty without PCA."""
        return {
            f"{prefix}{name}": value
            for prefix, part in self._projections().items()
            for name, value in (("mean", part.mean), ("components", part.components))
            if value is not None
        }

    def save(self, path: str | Path) -> None:
        """Writes what was fitted (``.npz`` of ``mean [F]`` and ``components [D, F]``).

        Those of a descriptor are called ``beside_mean`` and ``beside_components``. Nothing is
        written where there is no PCA.
        """
        arrays = {name: value.cpu().numpy() for name, value in self.fitted().items()}
        if arrays:
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)

    def load(self, path: str | Path) -> None:
        """Takes back what `save` wrote; does nothing where no PCA is asked for.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or belongs to another width or number of components.
        """
        wanted = {
            prefix: part
            for prefix, part in self._projections().items()
            if part.num_components is not None
        }
        if not wanted:
            return
        local = Path(path)
        if not local.is_file():
            raise FileNotFoundError(
                f"no projection at {local}; expected the run's embeddings/projection.npz, since "
                f"embedding.pca={self.settings.pca}; train again with rerun=true"
            )
        names = [f"{prefix}{name}" for prefix in wanted for name in ("mean", "components")]
        try:
            with np.load(local, allow_pickle=False) as kept:
                arrays = {name: kept[name].astype(np.float32) for name in names}
        except Exception as error:  # a damaged zip raises whatever its bytes lead to
            raise ValueError(
                f"{local} cannot be read ({type(error).__name__}: {str(error)[:200]}); expected "
                f"{', '.join(names)}; train again with rerun=true"
            ) from error
        for prefix, part in wanted.items():
            try:
                part.set(arrays[f"{prefix}mean"], arrays[f"{prefix}components"])
            except ValueError as error:
                raise ValueError(f"{local}: {error}") from error


def rows_to_fit(num_items: int) -> NDArray[np.int64]:
    """Returns the rows that PCA is fitted on: all, or `MAX_FIT_ITEMS` spread evenly over them."""
    spread = np.linspace(0, num_items - 1, min(num_items, MAX_FIT_ITEMS))
    return np.unique(spread.astype(np.int64))


def pooled(outputs: Tensor, pool: Pool) -> Tensor:
    """Returns ``[B, F]`` of a layer's ``[B, C, H, W]``; see `EmbeddingSettings.pool`.

    Example:
        >>> layer = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])  # [1, 2, 1, 2]
        >>> pooled(layer, "average").tolist(), pooled(layer, "max").tolist()
        ([[2.0, 1.0]], [[3.0, 2.0]])
        >>> pooled(layer, "flatten").tolist()
        [[1.0, 3.0, 0.0, 2.0]]
    """
    if pool == "flatten":
        return outputs.flatten(1)
    if pool == "average":
        return outputs.mean(dim=(2, 3))
    if pool == "max":
        return outputs.amax(dim=(2, 3))
    # Negative values have no generalised mean; the paper's layer follows a ReLU.
    return outputs.clamp(min=1e-6).pow(GEM_POWER).mean(dim=(2, 3)).pow(1 / GEM_POWER)
