"""What an augmentation promises: each picture on its own, repeatable, nothing at strength 0."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from visual_search.training.augmentation import Augmentation, uniform_numbers

SIDE = 16
EVERYTHING = Augmentation(
    flip=0.5, min_scale=0.6, max_scale=1.3, max_shift=0.1, max_rotation_degrees=20.0,
    max_stretch=1.3, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2,
    blur=0.5, blur_sigma=0.05, erasing=0.5,
)  # fmt: skip


def pictures(num: int = 12, side: int = SIDE) -> Tensor:
    """Random pictures, channels last in memory as the loader's are."""
    values = torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(0))
    return (values * 2 - 1).contiguous(memory_format=torch.channels_last)


def numbers(num: int = 12, view: int = 0) -> Tensor:
    positions = np.arange(num)
    return torch.from_numpy(uniform_numbers(3, 0, positions, view, Augmentation.num_numbers))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_at_strength_0_a_picture_stays_bit_for_bit(layout: torch.memory_format) -> None:
    images = pictures().contiguous(memory_format=layout)
    strength = torch.tensor([0.0, 1.0] * 6)
    changed = EVERYTHING(images, numbers(), strength)
    assert torch.equal(changed[::2], images[::2])
    assert all(not torch.equal(a, b) for a, b in zip(changed[1::2], images[1::2], strict=True))
    assert changed.is_contiguous(memory_format=layout)


def test_every_picture_has_parameters_of_its_own() -> None:
    images = pictures(1).expand(12, -1, -1, -1)
    for augmentation in (EVERYTHING, Augmentation(min_scale=0.5), Augmentation(brightness=0.5)):
        changed = augmentation(images, numbers())
        different = {tuple(picture.flatten().tolist()) for picture in changed}
        assert len(different) == 12
        assert not torch.equal(changed, augmentation(images, numbers(view=1)))  # nor do two views


def test_a_result_does_not_depend_on_its_neighbours() -> None:
    images, drawn, strength = pictures(), numbers(), torch.ones(12)
    whole = EVERYTHING(images, drawn, strength)
    for place in range(12):
        single = EVERYTHING(images[place : place + 1], drawn[place : place + 1])
        torch.testing.assert_close(single[0], whole[place], atol=1e-5, rtol=0)
    images[1:], drawn[1:], strength[1:] = -images[1:], numbers(view=5)[1:], 2.5
    second = EVERYTHING(images, drawn, strength)
    assert torch.equal(whole[0], second[0])
    assert not torch.equal(whole[1:], second[1:])


def test_it_repeats_exactly_and_leaves_the_inputs_and_random_states_alone() -> None:
    images, drawn = pictures(), numbers()
    kept, state, numpy_state = images.clone(), torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    changed = EVERYTHING(images, drawn)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # nor does that change anything
        assert torch.equal(EVERYTHING(images, drawn), changed)
    assert Augmentation()(images, drawn) is images  # the defaults change nothing
    assert torch.equal(images, kept)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_values_stay_in_range() -> None:
    strength = torch.tensor([0.3, 1.0, 3.0]).repeat(16)
    changed = EVERYTHING(pictures(48).sign(), numbers(48), strength)  # only -1 and 1
    assert changed.isfinite().all()
    assert changed.min() >= -1
    assert changed.max() <= 1


@pytest.mark.parametrize(
    "weaker",
    [
        {"brightness": 0.2}, {"hue": 0.1}, {"max_rotation_degrees": 10.0}, {"min_scale": 0.8},
        {"max_shift": 0.1}, {"flip": 0.3}, {"blur": 0.4, "blur_sigma": 0.03}, {"grayscale": 0.25},
    ],
    ids=lambda weaker: next(iter(weaker)),
)  # fmt: skip
def test_strength_multiplies_ranges_and_probabilities(weaker: dict[str, float]) -> None:
    images, drawn = pictures(), numbers()
    stronger = {k: v**2 if k == "min_scale" else 2 * v for k, v in weaker.items()}
    halved = Augmentation(**stronger)(images, drawn, torch.full((12,), 0.5))
    torch.testing.assert_close(halved, Augmentation(**weaker)(images, drawn), atol=1e-5, rtol=0)
    assert not torch.allclose(halved, Augmentation(**stronger)(images, drawn), atol=1e-3)


def test_turning_one_change_off_leaves_the_others_as_they_are() -> None:
    images, drawn = pictures(), numbers()
    flipped = Augmentation(flip=0.5)(images, drawn)
    with_colour = Augmentation(flip=0.5, brightness=0.3)(images, drawn)
    alone = Augmentation(brightness=0.3)(flipped, drawn)
    assert torch.equal(with_colour, alone)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("flip", 1.5, "got augmentation.flip 1.5, expected 0 to 1"),
        ("hue", 0.6, "got augmentation.hue 0.6, expected 0 to 0.5"),
        ("min_scale", 0.0, "got augmentation.min_scale 0.0, expected 0.05 to 10"),
        ("max_stretch", 0.9, "got augmentation.max_stretch 0.9, expected 1 to 10"),
        ("max_rotation_degrees", 270.0, "expected 0 to 180; set augmentation.max_rot"),
        ("contrast", float("nan"), "got augmentation.contrast nan"),
        ("min_scale", 1.2, "got augmentation.min_scale 1.2 above augmentation.max_scale 1.0"),
        ("min_erased_area", 0.5, "min_erased_area 0.5 above augmentation.max_erased_area 0.2"),
    ],
)
def test_impossible_settings_are_refused(setting: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**{setting: value})


@pytest.mark.parametrize(
    ("images", "drawn", "strength", "message"),
    [
        (pictures()[:, :2], numbers(), None, r"got pictures of shape \(12, 2, 16, 16\)"),
        (pictures()[..., :8], numbers(), None, r"shape \(12, 3, 16, 8\), expected \[B, 3, S, S\]"),
        (pictures(), numbers(11), None, r"numbers has shape \(11, 18\), expected \(12, 18\)"),
        (pictures(), numbers(13), None, r"numbers has shape \(13, 18\), expected \(12, 18\)"),
        (pictures(), numbers() * 2, None, "numbers lie between .* expected 0 to 1"),
        (pictures(), numbers(), torch.ones(3), r"strength has shape \(3,\), expected \(12,\)"),
        (pictures(), numbers(), -torch.ones(12), "strength lies between -1 and -1"),
        (pictures(), numbers(), torch.full((12,), torch.inf), "strength lies between inf"),
    ],
)
def test_wrong_inputs_are_refused(
    images: Tensor, drawn: Tensor, strength: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EVERYTHING(images, drawn, strength)
    with pytest.raises(TypeError, match=r"torch\.uint8, expected float32"):
        EVERYTHING(torch.zeros(12, 3, 8, 8, dtype=torch.uint8), numbers())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    images, drawn = pictures(), numbers()
    for augmentation in (EVERYTHING, replace(EVERYTHING, erasing=0.0)):
        there = augmentation(images.cuda(), drawn)
        assert there.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(there, augmentation(images.cuda(), drawn.cuda()))
        torch.testing.assert_close(there.cpu(), augmentation(images, drawn), atol=1e-4, rtol=0)
