from __future__ import annotations

import json

import pytest

from visual_search.knn import choice
from visual_search.knn.choice import choose_kind, free_bytes, list_count, part_count
from visual_search.knn.plan import KINDS, PARAMETERS, SearchPlan

IVF = {"num_lists": 10, "code_bits": 8, "num_probes": 2, "num_candidates": 15}


def test_a_plan_survives_json():
    plan = SearchPlan("ivf", "so many", IVF, 0.9, 5, 0.93, 100, 1000)
    assert SearchPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert set(PARAMETERS) | {"auto"} == set(KINDS)


def test_a_plan_was_made_for_no_rows_unless_it_says_so():
    assert SearchPlan("flat", "so few").sentence(0) == "flat; so few"
    assert SearchPlan("flat", "so few").sentence(1).startswith("flat, chosen for 0 of its 1 row;")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "auto"}, "kind is 'auto'; expected one of flat"),
        ({"kind": "annoy"}, "kind is 'annoy'"),
        ({"params": {}}, r"the parameters of ivf are \[\]"),
        ({"params": {**IVF, "num_lists": 0}}, "num_lists of ivf is 0"),
        ({"params": {**IVF, "num_lists": 2**31}}, "num_lists of ivf is 2147483648"),
        ({"params": {**IVF, "num_probes": 2.5}}, "num_probes of ivf is 2.5"),
        ({"params": {**IVF, "num_probes": True}}, "num_probes of ivf is True"),
        ({"target_recall": 0}, "target_recall is 0; expected a share"),
        ({"target_recall": 1.1}, r"target_recall is 1.1"),
        ({"recall_k": 0}, "recall_k is 0"),
        ({"recall": 1.5}, "recall is 1.5"),
        ({"recall": float("nan")}, "recall is nan"),
        ({"num_sample": -1}, "num_sample is -1"),
        ({"reason": 3}, "reason of the search plan is 3; expected str"),
        ({"recall_k": "10"}, "recall_k of the search plan is '10'"),
        ({"num_trained_rows": True}, "num_trained_rows of the search plan is True"),
        ({"extra": 1}, "a search plan has the fields"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes, message):
    values = {**SearchPlan("ivf", "so many", IVF).to_json(), **changes}
    with pytest.raises(ValueError, match=message):
        SearchPlan.from_json(values)


@pytest.mark.parametrize(
    ("num_rows", "mib", "kind"),
    [
        (0, 100, "flat"),
        (20_000, 100, "flat"),
        (20_000, 30, "ivf"),  # 39 MiB do not fit, 12 MiB do
        (20_000, 5, "ivfpq"),
        (500, 0.1, "flat"),  # too few for a product quantiser
        (131_072, 1000, "flat"),
        (131_073, 1000, "ivf"),
        (1_000_000, 600, "ivf"),
        (1_000_000, 400, "ivfpq"),
    ],
)
def test_auto_chooses_by_number_and_memory(num_rows, mib, kind):
    chosen, reason = choose_kind(num_rows, 512, int(mib * 2**20))
    assert chosen == kind
    assert f"{num_rows:,} items of 512 numbers" in reason


def test_auto_takes_half_of_what_is_free_and_says_when_even_the_smallest_does_not_fit(monkeypatch):
    monkeypatch.setattr(choice, "free_bytes", lambda: 10**9)
    assert "within 500 MB of memory" in choose_kind(1_000_000, 512)[1]
    assert "still more than there is" in choose_kind(1_000_000, 512, 2**20)[1]


def test_free_memory_is_the_smaller_of_machine_and_control_group(monkeypatch):
    texts = {
        "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    4096 kB",
        "/sys/fs/cgroup/memory.max": "3000000",
        "/sys/fs/cgroup/memory.current": "1000000",
    }
    monkeypatch.setattr(choice, "_text", lambda path: texts.get(path, ""))
    assert free_bytes() == 2_000_000
    texts["/sys/fs/cgroup/memory.max"] = "max"
    assert free_bytes() == 4096 * 1024
    texts.clear()
    assert free_bytes() == 2**31


def test_lists_can_be_trained_and_parts_divide_the_width():
    for num_rows in (1, 39, 78, 1000, 50_000, 1_000_000):
        assert list_count(num_rows) == 1 or num_rows / list_count(num_rows) >= 39
    assert list_count(1_000_000) == 4000
    for dim in (1, 7, 48, 100, 127, 512, 2048):
        assert dim % part_count(dim) == 0
        assert part_count(dim) * 8 >= dim
