from __future__ import annotations

import re

import faiss
import numpy as np
import pytest

from tests.knn.galleries import noise
from visual_search.knn import device
from visual_search.knn.exact_gallery import nearest
from visual_search.knn.gallery_index import EmbeddingIndex

GALLERY = noise(400, 16)
IDS = [f"item-{n:03d}" for n in range(400)]


class Clone:
    """Answers as the CPU index does, but for what is done to its answer."""

    def __init__(self, spoil, cpu):
        self.spoil, self.cpu, self.asked = spoil, cpu, []

    def search(self, queries, k):
        self.asked.append(k)
        found = self.cpu.search(queries, min(k + 1, self.cpu.ntotal))
        distances, rows = self.spoil(self, *found)
        return distances[:, :k], rows[:, :k]


def right(clone, distances, rows):
    """The last bits of the distances may be others."""
    return np.nextafter(distances, np.float32(np.inf)), rows


def without_one_item(clone, distances, rows):
    """Forgets an item, and is otherwise consistent."""
    kept = np.argsort(rows == 0, axis=1, kind="stable")
    return np.take_along_axis(distances, kept, 1), np.take_along_axis(rows, kept, 1)


def shifted_rows(clone, distances, rows):
    return distances, (rows + 1) % clone.cpu.ntotal


def half_precision(clone, distances, rows):
    """What tensor cores would give: distances good to three digits."""
    return distances.astype(np.float16).astype(np.float32), rows


def padding(clone, distances, rows):
    distances[:, 3:], rows[:, 3:] = np.finfo(np.float32).max, -1
    return distances, rows


def out_of_memory_later(clone, distances, rows):
    """Passes its trial, and fails once others have taken the memory."""
    if len(clone.asked) > 3:
        raise RuntimeError("cudaMalloc: out of memory")
    return distances, rows


@pytest.fixture
def one_gpu(monkeypatch):
    """Makes FAISS see one GPU whose clone does this to its answers; with None there is none."""

    class Resources:
        def setTempMemory(self, num_bytes):  # noqa: N802 - FAISS's name
            assert num_bytes == device.GPU_SCRATCH_BYTES

    clones = []

    def install(spoil):
        def clone(resources, number, cpu):
            if spoil is None:
                raise RuntimeError("out of memory on device 0")
            clones.append(Clone(spoil, cpu))
            clones[-1].gpu = number
            return clones[-1]

        monkeypatch.setattr(device, "gpu_trouble", lambda gpu: "")  # a trial on it went well
        monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
        monkeypatch.setattr(faiss, "index_cpu_to_gpu", clone, raising=False)
        return clones

    return install


def build(on="gpu", **more):
    return EmbeddingIndex.build(GALLERY, IDS, device=on, **more)


def assert_answers_as_the_cpu(index, k=5):
    expected, result = build("cpu").search(GALLERY, k, IDS), index.search(GALLERY, k, IDS)
    assert result.item_ids.tolist() == expected.item_ids.tolist()
    assert result.squared_distances.tolist() == expected.squared_distances.tolist()


def test_a_clone_that_answers_rightly_is_used_on_the_card_that_is_named(one_gpu):
    clones = one_gpu(right)
    index = build(gpu=3)
    assert (index.device, [clone.gpu for clone in clones]) == ("gpu", [3])
    assert "exactly as the CPU" in index.device_reason
    asked_before = len(clones[0].asked)
    assert_answers_as_the_cpu(index)
    assert len(clones[0].asked) > asked_before


REFUSED = "the GPU clone was refused.*"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_one_item, f"{REFUSED}sample queries answered otherwise"),
        (shifted_rows, f"{REFUSED}further off than float32 rounding"),
        (half_precision, f"{REFUSED}further off than float32 rounding"),
        (padding, f"{REFUSED}further off than float32 rounding"),
        (None, "out of memory on device 0"),
    ],
)
def test_a_clone_that_answers_wrongly_is_refused_and_the_cpu_answers(one_gpu, spoil, reason):
    one_gpu(spoil)
    index = build()
    assert index.device == "cpu"
    assert re.search(reason, index.device_reason)
    assert_answers_as_the_cpu(index)


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="here is a GPU")
def test_no_gpu_is_no_error():
    index = build()
    assert (index.device, index.gpu_failed) == ("cpu", True)
    assert index.device_reason == "FAISS sees no GPU"


@pytest.fixture
def faiss_in_trials(monkeypatch, tmp_path):
    """Returns processes that are started from here another FAISS."""
    device.gpu_trouble.cache_clear()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield lambda text: (tmp_path / "faiss.py").write_text(text)
    device.gpu_trouble.cache_clear()


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        # What FAISS does where the driver answers with an error: ends the process, no exception.
        ("print('CUDA error 999', file=sys.stderr); os.abort()", "status -6.*CUDA error 999"),
        ("raise RuntimeError('kernel image')", "status 1.*kernel image"),
        ("return 1", r"FAISS sees 1 GPU\(s\), not number 1"),
    ],
)
def test_a_driver_that_would_end_the_process_is_tried_in_another(faiss_in_trials, driver, reason):
    faiss_in_trials(f"import os, sys\ndef get_num_gpus():\n    {driver}\n")
    for _ in range(2):
        index = build(gpu=1)
        assert (index.device, index.gpu_failed) == ("cpu", True)
        assert re.search(reason, index.device_reason, re.DOTALL), index.device_reason
        assert_answers_as_the_cpu(index)
        faiss_in_trials("what is tried once")  # is not tried again


def test_a_gpu_that_fails_while_it_searches_leaves_it_to_the_cpu(one_gpu):
    clones = one_gpu(out_of_memory_later)
    index = build()
    assert index.device == "gpu"
    clones[0].asked += [0, 0]
    assert_answers_as_the_cpu(index)
    assert (index.device, index.gpu_failed) == ("cpu", True)
    assert "out of memory" in index.device_reason


def test_the_cards_memory_can_be_given_back(one_gpu):
    clones = one_gpu(right)
    index = build()
    index.leave_gpu()
    before = len(clones[0].asked)
    assert_answers_as_the_cpu(index)
    assert len(clones[0].asked) == before


def test_auto_takes_the_gpu_only_above_the_size_where_it_pays(one_gpu, monkeypatch):
    one_gpu(right)
    small = build("auto")
    assert (small.device, "6,400 numbers are below" in small.device_reason) == ("cpu", True)
    monkeypatch.setattr(device, "AUTO_GPU_NUM_VALUES", GALLERY.size)
    assert build("auto").device == "gpu"
    assert build("cpu").device == "cpu"


def test_the_gpu_is_never_asked_for_more_candidates_than_it_can_list(one_gpu, monkeypatch):
    clones = one_gpu(right)
    monkeypatch.setattr(device, "GPU_MAX_CANDIDATES", 50)
    assert_answers_as_the_cpu(build(), 100)
    assert max(clones[0].asked) <= 50


@pytest.mark.parametrize("spoil", [shifted_rows, half_precision, padding])
def test_even_a_bad_searcher_cannot_change_an_answer(spoil):
    index = build("cpu")
    expected = index.search(GALLERY, 5, IDS)
    searcher, own_rows = Clone(spoil, index._searcher), np.arange(len(GALLERY))
    rows, squared = nearest(index._gallery, searcher, GALLERY, 5, own_rows, None)
    assert rows.tolist() == expected.rows.tolist()
    assert squared.tolist() == expected.squared_distances.tolist()


class AsBadAsRoundingAllows:
    """True distances, each off by 90 % of what float32 may do to it, up or down by chance."""

    def __init__(self, gallery, seed):
        self.points = (gallery.embeddings - gallery.centre).astype(np.float64)
        self.random = np.random.default_rng(seed)

    def search(self, queries, k):
        squared = ((queries.astype(np.float64)[:, None] - self.points) ** 2).sum(axis=-1)
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)[:, None] + np.linalg.norm(
            self.points, axis=1
        )
        dim = self.points.shape[1]
        off = 0.9 * dim * (2.0**-24 * lengths**2 + 2.0**-126)
        rounded = (squared + self.random.choice([-1, 1], squared.shape) * off).astype(np.float32)
        rows = np.argsort(rounded, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(rounded, rows, axis=1), rows


@pytest.mark.parametrize("scale", [1.0, 1e-19, 1e-21])
@pytest.mark.parametrize("spread", [1e-3, 0.1, 1.0])
def test_the_worst_rounding_cannot_change_an_answer(spread, scale):
    """Four far clusters of 100, from much tighter than rounding to much wider."""
    centres = np.repeat(10 * noise(4, 16), 100, axis=0)
    points = (scale * (centres + spread * GALLERY)).astype(np.float32)
    index = EmbeddingIndex.build(points, IDS, device="cpu")
    expected = index.search(points, 5, IDS)
    searcher = AsBadAsRoundingAllows(index._gallery, seed=1)
    rows, _ = nearest(index._gallery, searcher, points, 5, np.arange(400), None)
    assert rows.tolist() == expected.rows.tolist()
    exact = ((points[:, None].astype(np.float64) - points) ** 2).sum(axis=-1)
    np.fill_diagonal(exact, np.inf)
    assert rows.tolist() == np.argsort(exact, axis=1, kind="stable")[:, :5].tolist()


@pytest.mark.skipif(faiss.get_num_gpus() < 1, reason="needs an NVIDIA GPU that FAISS can see")
def test_a_real_gpu_answers_exactly_as_the_cpu():
    index = build()
    assert index.device == "gpu", index.device_reason
    assert_answers_as_the_cpu(index)
