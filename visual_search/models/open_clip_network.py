"""The image towers of open_clip as backbones: CLIP, SigLIP, and their fashion models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from visual_search.models.backbone_networks import HUB, BackboneNetwork, created, unknown_name

OPEN_CLIP = "open_clip/"
_TOWER = "visual."  # before the names of the image tower's tensors in a file of both towers


class OpenClipNetwork(BackboneNetwork):
    """The image tower of a network of open_clip; what reads text is left away.

    Args:
        name: As ``open_clip.list_models()`` has it (``ViT-B-32``), with a tag of weights behind a
            dot where they are to be downloaded (``ViT-B-32.laion2b_s34b_b79k``), or ``hf-hub:``
            and a repository of the Hugging Face hub (``hf-hub:Marqo/marqo-fashionSigLIP``).
        image_size_px: Side S of the pictures.
        pretrained: Let open_clip find and download its weights.

    Raises:
        ValueError: open_clip is not installed, or has no such network or weights.
        ConnectionError: What the hub has is neither here nor can it be downloaded.
    """

    def __init__(self, name: str, image_size_px: int, pretrained: bool) -> None:
        super().__init__()
        try:
            import open_clip
        except ImportError as error:
            raise ValueError(
                f"got the network {OPEN_CLIP + name!r} of open_clip, which cannot be imported "
                f"({error}); run: pip install 'visual-search[open-clip]'"
            ) from error
        options: dict[str, Any] = {"load_weights": pretrained, "pretrained_text": False}
        architecture, tag = name, ""
        if name.startswith(HUB):
            config: Mapping[str, Any] = {}
        else:
            architecture, _, tag = name.partition(".")
            found = open_clip.get_model_config(architecture)
            if found is None:
                known = [OPEN_CLIP + one for one in open_clip.list_models()]
                raise unknown_name(OPEN_CLIP + name, known)
            config = found
            tags = open_clip.list_pretrained_tags_by_model(architecture)
            if (tag or pretrained) and tag not in tags:
                raise ValueError(
                    f"got {OPEN_CLIP + name!r}, expected weights of {architecture} behind a dot "
                    f"where they are to be downloaded: {', '.join(tags) or 'there are none'}; "
                    "correct model.name, or give a file or folder as model.weights=PATH"
                )
            options["pretrained"] = tag if pretrained else None
        size = config.get("vision_cfg", {}).get("image_size", image_size_px)
        self.native_size_px = int(size[0] if isinstance(size, list | tuple) else size)
        sizes = None
        if self.native_size_px != image_size_px:
            options["force_image_size"] = image_size_px
            sizes = (image_size_px, self.native_size_px)
        create = partial(open_clip.create_model, architecture, **options)
        whole = created(create, OPEN_CLIP + name, sizes, pretrained or name.startswith(HUB))
        self.network = whole.get_submodule("visual")
        seen: Mapping[str, Any] = self.network.preprocess_cfg  # type: ignore[assignment]
        self.mean, self.std = tuple(seen["mean"]), tuple(seen["std"])
        self.classifiers = ()

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """See `BackboneNetwork.maps`; tokens are laid out as maps, a block a stage."""
        forward: Callable[..., Mapping[str, list[Tensor]]] | None = getattr(
            self.network, "forward_intermediates", None
        )
        if forward is None:
            raise ValueError(
                f"got {type(self.network).__name__} of open_clip, expected a network that gives "
                "its stages' outputs; take another backbone, or leave layers and feature maps out"
            )
        maps = forward(images, output_fmt="NCHW", intermediates_only=True)["image_intermediates"]
        return {f"stage{number + 1}": each for number, each in enumerate(maps)}

    def own_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `BackboneNetwork.own_tensors`: the image tower's, of a file of both towers."""
        own = {k.removeprefix(_TOWER): v for k, v in tensors.items() if k.startswith(_TOWER)}
        return own or dict(tensors)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the embedding ``[B, P]`` that open_clip compares with texts, not normalised."""
        pooled: Tensor | tuple[Tensor, ...] = self.network(images)
        return pooled if isinstance(pooled, torch.Tensor) else pooled[0]
