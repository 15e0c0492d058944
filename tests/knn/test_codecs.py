from __future__ import annotations

import faiss
import numpy as np
import pytest

from visual_search.knn.codecs import (
    POINTS_PER_CENTROID,
    CannotEncodeError,
    Codec,
    codecs_for,
    decoded_gallery,
    is_unit_length,
)
from visual_search.knn.embeddings import check_array
from visual_search.knn.exact import exact_squared_distances
from visual_search.knn.principal_axes import principal_axes, shared_out


def drawn(num: int = 700, dim: int = 32, seed: int = 0) -> np.ndarray:
    """Embeddings that vary most in the first directions of a rotated space."""
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(num, dim)) * np.linspace(3, 0.1, dim) + rng.normal(size=dim)
    turned, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    return np.ascontiguousarray(spread @ turned, dtype=np.float32)


def unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def codec_named(name: str, dim: int = 32, num: int = 700) -> Codec:
    return next(codec for codec in codecs_for(dim, num)[0] if codec.name == name)


# --- which codecs there are -----------------------------------------------------------------------


def test_sizes_of_512_numbers() -> None:
    codecs, left_out = codecs_for(512, 11_029)
    sizes = {codec.name: codec.bytes_per_item for codec in codecs}
    assert codecs[0].family == "flat"
    assert not left_out
    known = {
        "Flat": 2048, "SQfp16": 1024, "SQ8": 512, "SQ6": 384, "SQ4": 256, "PQ64": 64, "OPQ64": 64,
        "PCA128": 512, "PCA128,SQfp16": 256, "PCA128,SQ8": 128, "First64": 256,
    }  # fmt: skip
    assert {name: sizes[name] for name in known} == known
    assert len(sizes) == len(codecs), "names are unique"
    families = {"flat", "half", "scalar", "product", "pca", "truncated"}
    assert {codec.family for codec in codecs} == families
    assert codec_named("PCA16,SQ8").shared_bytes == 4 * (16 * 32 + 32) + 8 * 16


@pytest.mark.parametrize(("num", "bits"), [(9984, 8), (9983, 6), (2496, 6), (2495, 4), (624, 4)])
def test_fewer_items_get_fewer_centroids(num: int, bits: int) -> None:
    codecs, left_out = codecs_for(64, num)
    factories = {codec.factory for codec in codecs if codec.series == "PQ"}
    assert factories == {f"PQ{parts}x{bits}np" for parts in (32, 16, 8)}
    assert num >= POINTS_PER_CENTROID * 2**bits
    assert ("PQ of 8 bits" in left_out) == (bits < 8)


def test_what_does_not_fit_is_left_out_with_the_reason() -> None:
    assert "fewer than 624" in codecs_for(64, 623)[1]["PQ"]
    assert "do not split" in codecs_for(7, 10_000)[1]["PQ"]
    assert "differ in at most 19 direction" in codecs_for(64, 20)[1]["PCA 32"]
    assert "would outweigh" in codecs_for(2048, 10_000)[1]["OPQ"]
    assert "fewer than 32" in codecs_for(31, 10_000)[1]["PCA and first numbers"]
    for dim, num in ((7, 10), (1, 1), (100, 10_000)):
        codecs, _ = codecs_for(dim, num)
        assert [codec.name for codec in codecs][:3] == ["Flat", "SQfp16", "SQ8"]
        for codec in codecs:
            parts = codec.factory.removeprefix("PQ").partition("x")[0]
            assert not codec.factory.startswith("PQ") or dim % int(parts) == 0


def test_an_empty_shape_and_a_codec_of_no_family_or_size_are_refused() -> None:
    for dim, num in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="is 0; expected at least 1"):
            codecs_for(dim, num)
    with pytest.raises(ValueError, match="has the family 'zip'; expected one of flat, half"):
        Codec("a", "a", "zip", "a", "a", "Flat", 1, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bytes_per_item 0; expected at least 1"):
        Codec("a", "a", "flat", "a", "a", "Flat", 1, 0)


# --- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [False, True], ids=["free", "unit"])
def test_every_codec_gives_the_gallery_back_nearly(scale: bool) -> None:
    gallery = unit(drawn()) if scale else drawn()
    variance = ((gallery - gallery.mean(axis=0)) ** 2).sum()
    codecs, _ = codecs_for(32, len(gallery))
    lost = {}
    for codec in codecs:
        decoded = decoded_gallery(gallery, codec)
        check_array(decoded, "gallery", dim=32)
        assert decoded.shape == gallery.shape
        if scale:
            assert np.linalg.norm(decoded, axis=1) == pytest.approx(1, abs=1e-5)
        lost[codec.name] = float(((decoded - gallery) ** 2).sum() / variance)
    assert lost["Flat"] == 0
    assert lost["SQfp16"] < 1e-6
    assert lost["SQ8"] < 1e-3 < lost["SQ4"] < 0.02
    assert lost["SQ8"] < lost["SQ6"] < lost["SQ4"]
    assert lost["PCA16"] < 0.15 < lost["First16"]
    assert lost["PCA16"] <= lost["PCA16,SQ8"] < lost["PCA16"] + 1e-3
    assert lost["PQ16x4"] < lost["PQ8x4"] < 1
    assert lost["OPQ8x4"] < lost["PQ8x4"], "axes shared out evenly are the better sub-vectors"


@pytest.mark.parametrize("name", ["PQ8x4", "OPQ8x4", "PCA16,SQ8"])
def test_it_is_deterministic_and_the_gallery_stays_as_it_is(name: str) -> None:
    gallery, codec = drawn(), codec_named(name)
    first = decoded_gallery(gallery, codec)
    np.testing.assert_array_equal(first, decoded_gallery(gallery, codec))
    np.testing.assert_array_equal(gallery, drawn())


@pytest.mark.parametrize("name", ["SQ8", "SQ4", "PQ8x4"])
def test_bytes_and_decoded_distances_are_faiss_asymmetric_ones(name: str) -> None:
    gallery, queries = drawn(), drawn(20, seed=1)
    codec = codec_named(name)
    index = faiss.index_factory(32, codec.factory)
    index.train(gallery)
    held = index.pq.centroids if name.startswith("PQ") else index.sq.trained
    assert codec.shared_bytes == 4 * held.size()
    assert index.sa_encode(gallery).shape[1] == codec.bytes_per_item
    index.add(gallery)
    theirs, rows = index.search(queries, 5)  # exact query against codes
    ours = exact_squared_distances(decoded_gallery(gallery, codec), queries, rows)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["First16", "First16-of-unit-length", "PCA16"])
def test_fewer_numbers_rank_as_in_the_smaller_space(name: str) -> None:
    gallery, queries = drawn(), drawn(20, seed=1)
    if name.endswith("unit-length"):
        gallery, queries = unit(gallery), unit(queries)
    decoded = decoded_gallery(gallery, codec_named(name.partition("-")[0]))
    small, asked = gallery[:, :16], queries[:, :16]
    if name.endswith("unit-length"):  # the cosine of the first numbers
        small, asked = unit(small), unit(asked)
    elif name == "PCA16":
        axes = principal_axes(gallery)
        small, asked = ((side - axes.mean) @ axes.axes[:16].T for side in (gallery, queries))
    whole = ((queries[:, None] - decoded[None]) ** 2).sum(axis=2)
    part = ((asked[:, None] - small[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(whole.argsort(axis=1)[:, :10], part.argsort(axis=1)[:, :10])


def test_length_zero_stays_zero_and_is_no_unit_length() -> None:
    gallery = unit(drawn())
    assert is_unit_length(gallery)
    gallery[3] = 0
    assert not is_unit_length(gallery)
    assert (decoded_gallery(gallery, codec_named("First16"))[3] == 0).all()


FLAT = np.outer(np.arange(700), np.ones(32)).astype(np.float32)  # varies in one direction


@pytest.mark.parametrize(
    ("gallery", "name", "error", "message"),
    [
        (FLAT, "PCA16", CannotEncodeError, r"varies in 1 direction\(s\), fewer than 16"),
        (drawn() * np.float32(1e6), "SQfp16", CannotEncodeError, "not come back as finite numbers"),
        (drawn(dim=8), "SQ8", ValueError, "keeps 32 numbers, and the embeddings have 8"),
        (drawn().astype(np.float64), "SQ8", TypeError, "expected a NumPy array of float32"),
    ],
)
def test_what_a_gallery_does_not_allow_is_refused(gallery, name, error, message) -> None:
    with pytest.raises(error, match=message):
        decoded_gallery(gallery, codec_named(name))
    assert np.isfinite(decoded_gallery(FLAT, codec_named("OPQ8x4"))).all()


# --- principal axes -------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [200, 20], ids=["more-items-than-numbers", "fewer"])
def test_axes_are_those_of_a_singular_value_decomposition(num: int) -> None:
    gallery = drawn(num)
    found = principal_axes(gallery)
    _, values, axes = np.linalg.svd(gallery - gallery.mean(axis=0, dtype=np.float64), False)
    rank = min(32, num - 1)
    assert found.axes.shape == (rank, 32)
    np.testing.assert_allclose(found.variances, values[:rank] ** 2 / num, rtol=1e-6)
    np.testing.assert_allclose(np.abs((found.axes * axes[:rank]).sum(axis=1)), 1, rtol=1e-6)
    assert (found.axes[np.arange(rank), np.abs(found.axes).argmax(axis=1)] > 0).all()


def test_a_gallery_that_does_not_vary_has_no_axes() -> None:
    found = principal_axes(np.ones((5, 3), dtype=np.float32))
    assert found.axes.shape == (0, 3)
    assert shared_out(found, 3, 1).tolist() == np.zeros((3, 3)).tolist()


def test_axes_are_shared_out_evenly() -> None:
    axes = principal_axes(drawn())
    order = np.abs(shared_out(axes, 32, 8) @ axes.axes.T).argmax(axis=1)
    assert sorted(order.tolist()) == list(range(32)), "each axis once"
    parts, in_order = (axes.variances[rows].reshape(8, 4).prod(axis=1)
                       for rows in (order, np.arange(32)))  # fmt: skip
    assert parts.max() / parts.min() < 1e-2 * in_order.max() / in_order.min()
    np.testing.assert_array_equal(shared_out(axes, 32, 1), axes.axes.astype(np.float32))
