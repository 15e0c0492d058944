"""An export that gives something else, or finds something else, is caught."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.served import embedded, fitted_head, letterboxed, small_encoder
from visual_search.models.embedding import EmbeddingHead
from visual_search.models.encoder import Encoder
from visual_search.models.export_check import ExportCheck, ExportError, check_export

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
PICTURES = letterboxed(6, 32, seed=1)


@pytest.fixture(scope="module")
def parts() -> tuple[Encoder, EmbeddingHead]:
    encoder = small_encoder()
    return encoder, fitted_head(encoder, {"normalize": True})


@pytest.fixture(scope="module")
def gallery(parts: tuple[Encoder, EmbeddingHead]) -> NDArray[np.float32]:
    return embedded(*parts, letterboxed(30, 32, seed=2))


def shifted(parts: tuple[Encoder, EmbeddingHead], by: float) -> Embed:
    """An export that is off by so much in one value of the third picture."""

    def embed(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = embedded(*parts, pictures)
        found[2, 5] += by
        return found

    return embed


def test_a_faithful_export_passes(
    parts: tuple[Encoder, EmbeddingHead], gallery: NDArray[np.float32]
) -> None:
    encoder, head = parts
    exported = embedded(encoder, head, PICTURES)
    encoder.train()  # it is asked in evaluation mode, and left as it was
    try:
        found = check_export(encoder, head, lambda _: exported, PICTURES, gallery=gallery, k=5)
        assert encoder.training
    finally:
        encoder.eval()
    # the copy that answered computes in another memory layout
    assert found.largest_difference < 1e-6
    assert 0.1 < found.largest_value <= 1
    assert (found.allowed_difference, found.num_ties) == (1e-4, 0)
    assert (found.num_pictures, found.k, found.num_gallery) == (6, 5, 30)


def test_embeddings_alone_may_be_compared(parts: tuple[Encoder, EmbeddingHead]) -> None:
    found = check_export(*parts, shifted(parts, 5e-5), PICTURES)
    assert isinstance(found, ExportCheck)
    assert found.largest_difference == pytest.approx(5e-5, rel=0.05)
    assert (found.k, found.num_gallery) == (0, 0)


@pytest.mark.parametrize("by", [2e-4, -2e-4, np.nan, np.inf])
def test_another_embedding_is_found(parts: tuple[Encoder, EmbeddingHead], by: float) -> None:
    with pytest.raises(ExportError, match=r"of picture 2 differs.*expected at most 0.0001"):
        check_export(*parts, shifted(parts, by), PICTURES)


def test_the_tolerance_grows_with_the_embeddings() -> None:
    encoder = small_encoder()
    encoder.projection.weight.data *= 1_000  # type: ignore[union-attr, operator]
    parts = encoder, fitted_head(encoder, {})
    largest = float(np.abs(embedded(*parts, PICTURES)).max())
    assert largest > 10
    found = check_export(*parts, shifted(parts, 0.5e-4 * largest), PICTURES)
    assert found.allowed_difference == pytest.approx(1e-4 * largest)
    with pytest.raises(ExportError, match="of picture 2 differs"):
        check_export(*parts, shifted(parts, 2e-4 * largest), PICTURES)


def test_another_width_is_found(parts: tuple[Encoder, EmbeddingHead]) -> None:
    with pytest.raises(ExportError, match=r"shape \[6, 3\], PyTorch \[6, 24\]"):
        check_export(*parts, lambda pictures: np.zeros((len(pictures), 3), np.float32), PICTURES)


def beside(
    parts: tuple[Encoder, EmbeddingHead], gap: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two items on either side of the third picture's embedding, the second nearer by a gap.

    Along the value that `shifted` moves, so that a shift by more than half the gap swaps them.
    """
    own = embedded(*parts, PICTURES)[2]
    items = np.stack([own, own])
    items[0, 5] -= 0.5 + gap
    items[1, 5] += 0.5
    return own, items


def test_another_neighbour_is_found(parts: tuple[Encoder, EmbeddingHead]) -> None:
    # 1.6e-4 of a distance of 0.5: the squared distances differ by 6.4 parts in 10,000
    _, items = beside(parts, 1.6e-4)
    same = check_export(*parts, shifted(parts, 0), PICTURES[2:3].repeat(3, 0), gallery=items, k=2)
    assert same.num_ties == 0
    with pytest.raises(ExportError, match=r"picture 2 has b at rank 1.*and a \(.*expected the sam"):
        check_export(
            *parts, shifted(parts, -9e-5), PICTURES[2:3].repeat(3, 0), gallery=items,
            item_ids=["a", "b"], k=1,
        )  # fmt: skip
    with pytest.raises(ExportError, match="has row 1 at rank 1 by PyTorch"):
        check_export(*parts, shifted(parts, -9e-5), PICTURES[2:3].repeat(3, 0), gallery=items, k=10)


def test_ties_are_no_fault(parts: tuple[Encoder, EmbeddingHead]) -> None:
    _, items = beside(parts, 1e-5)  # 0.4 parts in 10,000
    found = check_export(
        *parts, shifted(parts, -9e-5), PICTURES[2:3].repeat(3, 0), gallery=items, k=2
    )
    assert found.num_ties == 2  # both stand at the other's rank


def test_what_cannot_be_compared_is_refused(
    parts: tuple[Encoder, EmbeddingHead], gallery: NDArray[np.float32]
) -> None:
    embed = shifted(parts, 0)
    for pictures in (PICTURES[:0], PICTURES[:, :, :16], PICTURES.astype(np.float32)):
        with pytest.raises(ValueError, match=r"expected \[n, 3, 32, 32\] uint8 with n of at least"):
            check_export(*parts, embed, pictures)  # type: ignore[arg-type]
    for wrong in (gallery[:0], gallery[:, :7], gallery[0]):
        with pytest.raises(ValueError, match=r"got a gallery of shape .* expected \[N, 24\]"):
            check_export(*parts, embed, PICTURES, gallery=wrong)
    with pytest.raises(ValueError, match="and k 0, expected"):
        check_export(*parts, embed, PICTURES, gallery=gallery, k=0)
    with pytest.raises(ValueError, match="got 2 item_ids for 30 items"):
        check_export(*parts, embed, PICTURES, gallery=gallery, item_ids=["a", "b"])
