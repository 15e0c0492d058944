"""Networks of a few hundred weights, and a batch that they can learn in a second."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visual_search.models.autoencoder import Autoencoder
from visual_search.models.encoder import Encoder
from visual_search.models.objectives import contrastive, reconstruction, supervised
from visual_search.models.objectives.objective import Objective, StepBatch

SIDE = 16
DIM = 8
BATCH = 12
NUM_LABELS = {"category": 3, "colour": 2}


class SmallEncoder(Encoder):
    image_size_px = SIDE
    embedding_dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, DIM, 3, stride=2, padding=1, bias=False),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * DIM, DIM),
        )

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        embeddings: Tensor = self.trunk(images)
        return embeddings

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        return {"conv1": self.trunk[0](images)}


class SmallAutoencoder(SmallEncoder, Autoencoder):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(
            nn.Linear(DIM, 4 * DIM),
            nn.ReLU(),
            nn.Linear(4 * DIM, 3 * SIDE * SIDE),
            nn.Tanh(),
            nn.Unflatten(1, (3, SIDE, SIDE)),
        )


class SmallVariational(SmallAutoencoder):
    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Linear(DIM, DIM)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.encode(images)
        return mean, self.log_variance(mean)


class Fixed(Autoencoder):
    """Returns prepared embeddings and reconstructions, whatever it sees, and keeps what it saw."""

    image_size_px = SIDE

    def __init__(self, embeddings: Tensor, reconstructions: Tensor | None = None) -> None:
        super().__init__()
        self.embedding_dim = embeddings.shape[1]
        self.embeddings = embeddings
        self.reconstructions = reconstructions
        self.seen: list[Tensor] = []
        self.decoded: list[Tensor] = []

    def encode(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.embeddings

    def decode(self, embeddings: Tensor) -> Tensor:
        self.decoded.append(embeddings)
        assert self.reconstructions is not None
        return self.reconstructions

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        return {}


def batch_of(
    num_items: int = BATCH, num_views: int = 2, labels: dict[str, Tensor] | None = None
) -> StepBatch:
    """Pictures of their category's colour; views are the same with noise on them."""
    generator = torch.Generator().manual_seed(7)
    category = torch.arange(num_items) % 3
    colours = torch.eye(3)[category] * 1.2 - 0.6  # [B, 3]

    def noise(amount: float) -> Tensor:
        return amount * torch.randn(num_items, 3, SIDE, SIDE, generator=generator)

    images = (colours[:, :, None, None] + noise(0.15)).clamp(-1, 1)
    images = images.contiguous(memory_format=torch.channels_last)
    views = tuple((images + noise(0.05)).clamp(-1, 1) for _ in range(num_views))
    known = {"category": category, "colour": category % 2} if labels is None else labels
    return StepBatch(images, views, rows=torch.arange(num_items) * 3, labels=known)


@dataclass(frozen=True)
class Case:
    """A builder, a network that it can train, and what is known about its objective."""

    build: Callable[[], Objective]
    network: type[Encoder]
    num_views: int
    columns: tuple[str, ...] = ()
    has_errors: bool = True
    parts: tuple[str, ...] = ()
    least_loss: float = 0.0


RECONSTRUCTION = {
    "mse": Case(reconstruction.mse, SmallAutoencoder, 0),
    "denoising": Case(reconstruction.denoising, SmallAutoencoder, 1),
    "sparse": Case(
        reconstruction.sparse, SmallAutoencoder, 0, parts=("reconstruction", "activity")
    ),
    "variational": Case(
        reconstruction.variational, SmallVariational, 0, parts=("reconstruction", "kl")
    ),
    "ssim": Case(reconstruction.ssim, SmallAutoencoder, 0, parts=("reconstruction", "ssim")),
    "mixed": Case(reconstruction.mixed, SmallAutoencoder, 0, parts=("reconstruction", "ssim")),
    "masked": Case(lambda: reconstruction.masked(patch_px=4), SmallAutoencoder, 1),
}
CONTRASTIVE = {
    "simclr": Case(lambda: contrastive.simclr(DIM), SmallEncoder, 2, has_errors=False),
    "vicreg": Case(
        lambda: contrastive.vicreg(DIM, projection_dim=16),
        SmallEncoder,
        2,
        has_errors=False,
        parts=("invariance", "variance", "covariance"),
    ),
    "reconstruction_contrastive": Case(
        lambda: contrastive.reconstruction_contrastive(DIM),
        SmallAutoencoder,
        2,
        parts=("contrastive", "reconstruction"),
    ),
}
_CATEGORY = ("category",)
COUNT = NUM_LABELS.__getitem__
SUPERVISED = {
    "cross_entropy": Case(lambda: supervised.cross_entropy(DIM, COUNT), SmallEncoder, 1, _CATEGORY),
    "mixup": Case(
        lambda: supervised.cross_entropy(DIM, COUNT, mixup=0.2), SmallEncoder, 1, _CATEGORY
    ),
    "cosine_softmax": Case(
        lambda: supervised.cosine_softmax(DIM, COUNT), SmallEncoder, 1, _CATEGORY
    ),
    "multi_head": Case(
        lambda: supervised.multi_head(DIM, COUNT, ["category", "colour"], [2.0, 1.0]),
        SmallEncoder,
        1,
        ("category", "colour"),
        parts=("cross_entropy/category", "cross_entropy/colour"),
    ),
    "arcface": Case(lambda: supervised.arcface(DIM, COUNT), SmallEncoder, 1, _CATEGORY),
    "proxy_anchor": Case(
        lambda: supervised.proxy_anchor(DIM, COUNT), SmallEncoder, 1, _CATEGORY, has_errors=False
    ),
    "supcon": Case(
        lambda: supervised.supcon(DIM),
        SmallEncoder,
        2,
        _CATEGORY,
        has_errors=False,
        least_loss=math.log(7),  # 7 pictures that are equally right
    ),
}
CASES = {**RECONSTRUCTION, **CONTRASTIVE, **SUPERVISED}
