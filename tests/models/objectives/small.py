"""Networks of a few hundred weights, and a batch that they can learn in a second."""

import math
from dataclasses import dataclass
from inspect import signature
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn

from visual_search.config.builders import builders
from visual_search.models.autoencoder import Autoencoder
from visual_search.models.encoder import Encoder
from visual_search.models.objectives.objective import Objective, StepBatch

SIDE = 16
DIM = 8
BATCH = 12
COUNT = {"category": 3, "colour": 2}.__getitem__
BUILDS = {path.rpartition(".")[2]: resolve_name(path) for path in builders("objective")}


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
    """A network that an objective can train, and what is known about the objective."""

    network: type[Encoder]
    num_views: int
    parts: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    has_errors: bool = True
    least_loss: float = 0.0


CASES = {
    "mse": Case(SmallAutoencoder, 0),
    "denoising": Case(SmallAutoencoder, 1),
    "sparse": Case(SmallAutoencoder, 0, ("reconstruction", "activity")),
    "variational": Case(SmallVariational, 0, ("reconstruction", "kl")),
    "ssim": Case(SmallAutoencoder, 0, ("reconstruction", "ssim")),
    "mixed": Case(SmallAutoencoder, 0, ("reconstruction", "ssim")),
    "masked": Case(SmallAutoencoder, 1),
    "simclr": Case(SmallEncoder, 2, has_errors=False),
    "vicreg": Case(SmallEncoder, 2, ("invariance", "variance", "covariance"), has_errors=False),
    "reconstruction_contrastive": Case(SmallAutoencoder, 2, ("contrastive", "reconstruction")),
    "cross_entropy": Case(SmallEncoder, 1, columns=("category",)),
    "mixup": Case(SmallEncoder, 1, columns=("category",)),
    "cosine_softmax": Case(SmallEncoder, 1, columns=("category",)),
    "multi_head": Case(
        SmallEncoder, 1, ("cross_entropy/category", "cross_entropy/colour"), ("category", "colour")
    ),
    "arcface": Case(SmallEncoder, 1, columns=("category",)),
    "proxy_anchor": Case(SmallEncoder, 1, columns=("category",), has_errors=False),
    "supcon": Case(  # 7 pictures are equally right
        SmallEncoder, 2, columns=("category",), has_errors=False, least_loss=math.log(7)
    ),
}
SUPERVISED = [name for name, case in CASES.items() if case.columns]
_SETTINGS: dict[str, dict[str, Any]] = {
    "masked": {"patch_px": 4},
    "vicreg": {"projection_dim": 16},
    "multi_head": {"columns": ["category", "colour"], "weights": [2.0, 1.0]},
    "mixup": {"mixup": 0.2},
}


def build(name: str, **settings: Any) -> Objective:
    """Returns an objective as a config names it, with what a command passes itself."""
    given = {"embedding_dim": DIM, "num_labels": COUNT}
    passed = given.keys() & signature(BUILDS[name]).parameters
    objective: Objective = BUILDS[name](**{key: given[key] for key in passed} | settings)
    return objective


def case_objective(name: str) -> Objective:
    """Returns the objective of a case."""
    return build({"mixup": "cross_entropy"}.get(name, name), **_SETTINGS.get(name, {}))
