"""An export that gives something else, or finds something else, is caught."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.served import embedded, fitted_head, letterboxed, small_encoder
from visual_search.models.embedding import EmbeddingHead
from visual_search.models.encoder import Encoder
from visual_search.models.export_check import ExportError, check_export

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
PICTURES = letterboxed(6, 32, seed=1)


Parts = tuple[Encoder, EmbeddingHead]


@pytest.fixture(scope="module")
def parts() -> Parts:
    encoder = small_encoder()
    return encoder, fitted_head(encoder, {"normalize": True})


@pytest.fixture(scope="module")
def gallery(parts: Parts) -> NDArray[np.float32]:
    return embedded(*parts, letterboxed(30, 32, seed=2))


def shifted(parts: Parts, by: float) -> Embed:
    """An export that is off by so much in one value of the third picture."""

    def embed(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = embedded(*parts, pictures)
        found[2, 5] += by
        return found

    return embed


def test_a_faithful_export_passes(parts: Parts, gallery: NDArray[np.float32]) -> None:
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
    alone = check_export(*parts, shifted(parts, 5e-5), PICTURES)  # without a gallery
    assert alone.largest_difference == pytest.approx(5e-5, rel=0.05)
    assert (alone.k, alone.num_gallery) == (0, 0)


@pytest.mark.parametrize("by", [2e-4, -2e-4, np.nan, np.inf])
def test_another_embedding_is_found(parts: Parts, by: float) -> None:
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


def test_another_neighbour_is_found_and_ties_are_no_fault(parts: Parts) -> None:
    """Two items on either side of the picture, the second nearer by a gap: a shift swaps them."""
    picture, items = PICTURES[2:3].repeat(3, 0), embedded(*parts, PICTURES)[[2, 2]]
    items[:, 5] += (-0.5 - 1.6e-4, 0.5)  # their squared distances differ by 6.4 parts in 10,000
    other = shifted(parts, -9e-5)
    same = check_export(*parts, shifted(parts, 0), picture, gallery=items, k=2)
    assert same.num_ties == 0
    with pytest.raises(ExportError, match=r"picture 2 has b at rank 1.*and a \(.*expected the sam"):
        check_export(*parts, other, picture, gallery=items, item_ids=["a", "b"], k=1)
    with pytest.raises(ExportError, match="has row 1 at rank 1 by PyTorch"):
        check_export(*parts, other, picture, gallery=items, k=10)
    items[0, 5] += 1.5e-4  # 0.4 parts in 10,000 are left
    tied = check_export(*parts, other, picture, gallery=items, k=2)
    assert tied.num_ties == 2  # both stand at the other's rank


def test_what_cannot_be_compared_is_refused(parts: Parts, gallery: NDArray[np.float32]) -> None:
    embed = shifted(parts, 0)
    with pytest.raises(ExportError, match=r"shape \[6, 3\], PyTorch \[6, 24\]"):
        check_export(*parts, lambda _: np.zeros((6, 3), np.float32), PICTURES)
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
