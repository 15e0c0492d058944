"""Networks of timm and torchvision behind one face: pooled values, and maps by name."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from visual_search.models.encoder import evaluating

TORCHVISION = "torchvision/"
HUB = "hf-hub:"  # before a repository of the Hugging Face hub
_AUXILIARY = ("googlenet", "inception_v3")  # give several outputs in training; timm has them plain
_INSTALL = "run: pip install 'visual-search[backbones]'"


class BackboneNetwork(nn.Module, ABC):
    """A network without its classifier.

    Attributes:
        network: The library's module.
        classifiers: Names of the modules that its weights have and it does not.
        mean: Of each channel, in 0..1, that its pretrained weights expect to be taken off.
        std: Of each channel, in 0..1, that they expect to be divided by.
        native_size_px: Side of the pictures that the library made it for.
    """

    network: nn.Module
    classifiers: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    native_size_px: int

    def forward(self, images: Tensor) -> Tensor:
        """Returns the pooled values ``[B, P]`` of standardised pictures ``[B, 3, S, S]``."""
        pooled: Tensor = self.network(images)
        return pooled.flatten(1)  # some of torchvision give [B, P, 1, 1]

    def own_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns those of a file's tensors that are for this network, by its own names."""
        return dict(tensors)

    @abstractmethod
    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the stages' outputs ``[B, C, H, W]`` by name, first stage first.

        Raises:
            ValueError: The network has no such maps.
        """


class TimmNetwork(BackboneNetwork):
    """A network of timm.

    Args:
        name: As ``timm.list_models()`` has it, also with a tag of weights behind a dot, or
            ``hf-hub:`` and a repository of the Hugging Face hub in timm's format.
        image_size_px: Side S of the pictures, for networks that are built for one.
        pretrained: Let timm find and download its weights.

    Raises:
        ValueError: timm is not installed, the name is unknown, there are no weights of it, or the
            network cannot take pictures of that size.
        ConnectionError: What the hub has is neither here nor can it be downloaded.
    """

    def __init__(self, name: str, image_size_px: int, pretrained: bool) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ValueError(
                f"got the network {name!r} of timm, which cannot be imported ({error}); "
                f"{_INSTALL}, or take one as {TORCHVISION}resnet18"
            ) from error

        on_hub = name.startswith(HUB)
        if not on_hub and not timm.is_model(name):
            raise unknown_name(name, timm.list_models())
        try:
            config = None if on_hub else timm.get_pretrained_cfg(name)
        except RuntimeError as error:  # a tag that it does not have
            raise unknown_name(name, timm.list_pretrained(f"{name.partition('.')[0]}*")) from error
        if pretrained and not on_hub and not timm.is_model_pretrained(name):
            raise ValueError(
                f"got pretrained=True for {name!r}, expected a network that the library has "
                "weights of; give model.weights=PATH, or set model.pretrained=false for random ones"
            )
        self.native_size_px = config.input_size[-1] if config else image_size_px
        options: dict[str, Any] = {}
        if config and config.fixed_input_size and self.native_size_px != image_size_px:
            options["img_size"] = image_size_px
        create = partial(timm.create_model, name, pretrained, num_classes=0, **options)
        size = (image_size_px, self.native_size_px) if options else None
        self.network = created(create, name, size, pretrained or on_hub)
        # what it was created with: a tag may stand for another scale than the name alone
        settings: Mapping[str, Any] = self.network.pretrained_cfg  # type: ignore[assignment]
        self.mean, self.std = tuple(settings["mean"]), tuple(settings["std"])
        classifier = settings.get("classifier") or ()
        self.classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """See `BackboneNetwork.maps`.

        Stages have timm's names. Tokens of a vision transformer are laid out as maps. What
        follows on the last stage before pooling is ``final``, where it has another width.
        """
        forward_intermediates: Callable[..., tuple[Tensor, list[Tensor]]] | None = getattr(
            self.network, "forward_intermediates", None
        )
        if forward_intermediates is None:
            raise ValueError(
                f"got {type(self.network).__name__}, expected a network of timm that gives its "
                "stages' outputs; take another backbone, or leave layers and feature maps out"
            )
        last, maps = forward_intermediates(images, output_fmt="NCHW")
        stages: list[Mapping[str, object]] = list(self.network.feature_info)  # type: ignore[arg-type]
        names = [str(stage["module"]) for stage in stages]
        if len(names) != len(maps):
            names = [f"stage{number + 1}" for number in range(len(maps))]
        outputs = dict(zip(names, maps, strict=True))
        # EfficientNets widen the map; others give tokens or channels last, which are no news
        if last.ndim == 4 and last.shape[2:] == maps[-1].shape[2:]:
            outputs.update({"final": last} if last.shape[1] != maps[-1].shape[1] else {})
        return outputs


class TorchvisionNetwork(BackboneNetwork):
    """A classification network of torchvision, its map pooled to one value a channel.

    Args:
        name: As ``torchvision.models.list_models()`` has it.
        image_size_px: Side S of the pictures, for networks that are built for one.
        pretrained: Let torchvision find and download its default weights.

    Raises:
        ValueError: The name is unknown, or the network cannot take pictures of that size.
        ConnectionError: The weights are neither here nor can they be downloaded.
    """

    def __init__(self, name: str, image_size_px: int, pretrained: bool) -> None:
        super().__init__()
        from torchvision import models

        names = [n for n in models.list_models(module=models) if n not in _AUXILIARY]
        if name not in names:
            raise unknown_name(TORCHVISION + name, [TORCHVISION + n for n in names])
        settings = models.get_model_weights(name).DEFAULT.transforms()
        self.native_size_px = settings.crop_size[0]
        options = {"image_size": image_size_px} if name.startswith("vit_") else {}
        weights = "DEFAULT" if pretrained else None
        create = partial(models.get_model, name, weights=weights, progress=False, **options)
        size = (image_size_px, self.native_size_px) if options else None
        self.network = created(create, TORCHVISION + name, size, pretrained)
        self.mean, self.std = tuple(settings.mean), tuple(settings.std)
        # VGG and AlexNet keep a map of 7 x 7 or 6 x 6 for their classifiers: 25,088 values
        if isinstance(getattr(self.network, "avgpool", None), nn.AdaptiveAvgPool2d):
            self.network.avgpool = nn.AdaptiveAvgPool2d(1)
        present = ("fc", "classifier", "heads", "head")
        self.classifiers = tuple(n for n in present if hasattr(self.network, n))
        for classifier in self.classifiers:
            setattr(self.network, classifier, _without_linear(getattr(self.network, classifier)))

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """See `BackboneNetwork.maps`; stages are named as torchvision's modules are."""
        from torchvision.models import SwinTransformer

        channels_last = isinstance(self.network, SwinTransformer)
        outputs: dict[str, Tensor] = {}

        def keep(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] > 0:
                output = output.permute(0, 3, 1, 2) if channels_last else output
                outputs[name] = output.clone()  # the next module may work in place

        hooks = [
            module.register_forward_hook(partial(keep, name)) for name, module in self._stages()
        ]
        try:
            self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        if len(outputs) < 2:  # the patches of a vision transformer are no stage yet
            raise ValueError(
                f"got {type(self.network).__name__} of torchvision, which computes on tokens, "
                "expected a network of maps; take the same one of timm, whose tokens become maps"
            )
        return outputs

    def _stages(self) -> Iterator[tuple[str, nn.Module]]:
        """Returns children by name, going into those that only hold the stages together."""
        for name, child in self.network.named_children():
            if name in (*self.classifiers, "avgpool", "norm", "permute", "flatten"):
                continue
            if name in ("features", "layers", "trunk_output", "blocks"):
                yield from ((f"{name}.{part}", module) for part, module in child.named_children())
            else:
                yield name, child


def created(
    create: Callable[[], nn.Module], name: str, size: tuple[int, int] | None, pretrained: bool
) -> nn.Module:
    """Creates a library's network, and says what its errors mean.

    Args:
        create: Does it.
        name: For messages.
        size: Side that is asked for and side that is usual, of a network that is built for one.
        pretrained: Whether something may have to be downloaded.

    Raises:
        ValueError: The network cannot take pictures of that size.
        ConnectionError: What is to be downloaded cannot be.
    """
    try:
        return create()
    except (TypeError, AssertionError, ValueError) as error:
        if size is None:
            raise
        raise wrong_size(name, *size, error) from error
    except Exception as error:  # whatever the library that downloads has
        if not pretrained:
            raise
        raise ConnectionError(
            f"the network or weights of {name!r} are not on this machine and could not be "
            f"downloaded ({type(error).__name__}: {error}); connect it, or give a file or "
            "folder as model.weights=PATH with model.pretrained=false"
        ) from error


class _PooledMap(nn.Module):
    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.mean(dim=(2, 3)) if hidden.ndim == 4 else hidden


def _without_linear(classifier: nn.Module) -> nn.Sequential:
    """Returns what stands in a classifier before its first layer of weights or dropout: norms."""
    parts = classifier if isinstance(classifier, nn.Sequential) else nn.Sequential(classifier)
    kept = takewhile(lambda p: not isinstance(p, nn.Linear | nn.Conv2d | nn.Dropout), parts)
    return nn.Sequential(*kept, _PooledMap())  # the kept have the names that their weights have


def measure_width(network: BackboneNetwork, name: str, image_size_px: int) -> int:
    """Returns how many values a network gives a picture, by showing it a black one.

    Raises:
        ValueError: The network cannot take pictures of that size.
    """
    try:
        with evaluating(network):
            pooled = network(torch.zeros(1, 3, image_size_px, image_size_px))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise wrong_size(name, image_size_px, network.native_size_px, error) from error
    return int(pooled.shape[1])


def unknown_name(name: str, known: list[str]) -> ValueError:
    """Returns the error for a name that no library has, with the nearest ones."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:3]
    return ValueError(
        f"got the backbone {name!r}, expected a network of timm, {TORCHVISION}NAME or "
        f"open_clip/NAME; near it are {', '.join(near)}: correct model.name"
    )


def wrong_size(name: str, size_px: int, native_px: int, error: Exception) -> ValueError:
    """Returns the error for pictures that a network cannot take."""
    return ValueError(
        f"got image_size_px {size_px} for {name!r}, expected a size that it can take "
        f"({type(error).__name__}: {error}); set pictures.size_px={native_px}, or take another "
        "backbone"
    )
