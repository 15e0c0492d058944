"""One contract for every variant, and the layer tables against their published facts."""

import pytest
import torch

from visual_search.models.autoencoder import (
    Autoencoder,
    Conv,
    ConvTransposed,
    LayerTableAutoencoder,
    Pool,
)
from visual_search.models.variants import baseline, plus_layer

VARIANTS = [baseline, plus_layer]


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def random_pictures(model: Autoencoder, num: int = 2) -> torch.Tensor:
    side = model.image_size_px
    return torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(params=VARIANTS, ids=lambda builder: builder.__name__)
def model(request: pytest.FixtureRequest) -> Autoencoder:
    torch.manual_seed(0)
    built = request.param()
    assert isinstance(built, Autoencoder)
    return built.eval()


def test_shapes_and_ranges(model: Autoencoder) -> None:
    pictures = random_pictures(model)
    with torch.no_grad():
        embeddings = model.encode(pictures)
        restored = model.decode(embeddings)
    assert embeddings.shape == (2, model.embedding_dim)
    assert restored.shape == pictures.shape
    assert torch.isfinite(embeddings).all()
    assert restored.abs().max() <= 1


def test_forward_is_decode_of_encode(model: Autoencoder) -> None:
    pictures = random_pictures(model)
    with torch.no_grad():
        torch.testing.assert_close(model(pictures), model.decode(model.encode(pictures)))


def test_layers_end_in_the_embedding_and_have_different_names(model: Autoencoder) -> None:
    pictures = random_pictures(model)
    with torch.no_grad():
        layers = model.layers(pictures)
        embeddings = model.encode(pictures)
    assert all(output.ndim == 4 and len(output) == 2 for output in layers.values())
    torch.testing.assert_close(list(layers.values())[-1].flatten(1), embeddings)


def test_a_layers_output_is_not_changed_by_the_next(model: Autoencoder) -> None:
    """In-place activations would show here as maps that a later layer overwrote."""
    pictures = random_pictures(model)
    with torch.no_grad():
        together = model.layers(pictures)
        hidden = pictures
        for name, layer in model.encoder.named_children():  # type: ignore[union-attr]
            hidden = layer(hidden.clone())
            torch.testing.assert_close(together[name], hidden)


def test_gradients_reach_every_parameter(model: Autoencoder) -> None:
    pictures = random_pictures(model)
    (model(pictures) - pictures).square().mean().backward()
    unreached = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


def test_state_dict_round_trip(model: Autoencoder) -> None:
    builder = next(b for b in VARIANTS if num_parameters(b()) == num_parameters(model))
    other = builder().eval()
    other.load_state_dict(model.state_dict())
    pictures = random_pictures(model)
    with torch.no_grad():
        assert torch.equal(other(pictures), model(pictures))


def test_pictures_of_another_size_are_refused(model: Autoencoder) -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 64, 64\).*pictures.size_px=128"):
        model.encode(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"\(3, 128, 128\)"):
        model.layers(torch.zeros(3, 128, 128))


def test_embeddings_of_another_width_are_refused(model: Autoencoder) -> None:
    with pytest.raises(ValueError, match=rf"\(1, 7\).*{model.embedding_dim}"):
        model.decode(torch.zeros(1, 7))


def test_plus_layer_is_the_published_network() -> None:
    model = plus_layer()
    assert num_parameters(model) == 10_429_827
    assert num_parameters(model.encoder) == 6_455_104  # type: ignore[arg-type]
    assert model.embedding_dim == 512
    names = list(model.layers(torch.zeros(1, 3, 128, 128)))
    assert names == [
        *("conv1", "conv2", "pool1", "conv3", "conv4", "pool2"),
        *("conv5", "pool3", "conv6", "conv7", "conv8", "pool4"),
    ]
    assert len(list(model.decoder.children())) == 8  # type: ignore[union-attr]


def test_plus_layer_side_lengths_follow_the_text() -> None:
    sides = [o.shape[-1] for o in plus_layer().layers(torch.zeros(1, 3, 128, 128)).values()]
    assert sides == [128, 128, 64, 32, 30, 15, 8, 4, 4, 4, 2, 1]


def test_plus_layer_has_no_relu_after_its_seventh_convolution() -> None:
    torch.manual_seed(0)
    layers = plus_layer().layers(torch.rand(2, 3, 128, 128))
    negative = {name for name, output in layers.items() if output.min() < 0}
    assert negative == {"conv7"}


def test_baseline_is_the_described_network() -> None:
    model = baseline()
    assert num_parameters(model.encoder) == 1_735_488  # type: ignore[arg-type]
    assert model.embedding_dim == 4096
    layers = model.layers(torch.zeros(1, 3, 128, 128))
    assert sum(name.startswith("conv") for name in layers) == 7
    assert sum(name.startswith("pool") for name in layers) == 3
    assert list(layers.values())[-1].shape == (1, 256, 4, 4)
    assert len(list(model.decoder.children())) == 7  # type: ignore[union-attr]


def test_a_table_that_misses_its_bottleneck_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder's table ends in \(4, 8, 8\)"):
        LayerTableAutoencoder([Conv(3, 4), Pool()], [ConvTransposed(4, 3)], (4, 4, 4), 16)


def test_a_table_that_does_not_lead_back_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decoder's table ends in \(3, 8, 8\)"):
        LayerTableAutoencoder([Conv(3, 4), Pool()], [ConvTransposed(4, 3)], (4, 8, 8), 16)
