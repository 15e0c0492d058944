"""What was asked for in terms of the machine: found once, refused with value, expectation, fix."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from tests.training.conftest import NewDatamodule
from tests.training.on_two_devices import KINDS
from visual_search.training.devices import (
    DeviceMemoryError,
    check_hardware,
    find_hardware,
    memory_told,
    num_devices,
    usable_precision,
)
from visual_search.training.evaluation import index_place
from visual_search.training.trainer import build_trainer

Pretend = Callable[..., None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Returns what makes this machine one with some cards, of the capabilities, or an Apple GPU."""

    def machine(*capabilities: tuple[int, int], mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda n=0: capabilities[n])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda n=0: f"card {n}")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    machine()
    return machine


THREE_CARDS = ((9, 0), (8, 0), (7, 5))  # the last one without bf16
UNUSED = "ddp_find_unused_parameters_true"


@pytest.mark.parametrize(
    ("asked", "devices", "strategy"),
    [
        ({}, 1, "auto"),
        ({"devices": 2}, 2, UNUSED),
        ({"devices": "2"}, 2, UNUSED),
        ({"devices": "auto"}, 1, "auto"),
        ({"devices": 2, "strategy": "ddp"}, 2, UNUSED),
        ({"strategy": "ddp"}, 1, UNUSED),
        ({"devices": 2, "strategy": UNUSED.replace("true", "false")}, 2, UNUSED[:-4] + "false"),
    ],
)
def test_several_processes_are_joined_so_that_parts_without_gradients_do_no_harm(
    pretend: Pretend, asked: dict[str, Any], devices: int, strategy: str
) -> None:
    hardware = find_hardware(**asked)
    assert (hardware.kind, hardware.devices, hardware.strategy) == ("cpu", devices, strategy)


@pytest.mark.parametrize(
    ("devices", "cards"),
    [(1, [0]), (2, [0, 1]), ("2", [0, 1]), (-1, [0, 1, 2]), ("auto", [0, 1, 2]), ([1], [1]),
     ("2,", [2]), ("0,2", [0, 2])],
)  # fmt: skip
def test_cards_are_counted_or_named(pretend: Pretend, devices: Any, cards: list[int]) -> None:
    pretend(*THREE_CARDS)
    for accelerator in ("auto", "gpu", "cuda"):
        hardware = find_hardware(accelerator, devices)
        assert (hardware.kind, hardware.devices) == ("cuda", cards)
        assert hardware.precision == ("16-mixed" if 2 in cards else "bf16-mixed")
        assert num_devices(accelerator, devices) == len(cards)


# What stands in the message, and what is asked for, of a machine with three cards or none.
REFUSED_WITH_CARDS = {
    "the 3 GPU.*trainer.devices=1": [
        {"accelerator": kind, "devices": devices}
        for kind in ("gpu", "auto")
        for devices in (0, 4, [3], [0, 0], [], "a", "", "-2", [-1], None, 1.5)
    ],
    "precision=.*trainer.precision=auto": [
        {"accelerator": kind, "devices": devices, "precision": precision}
        for kind, devices, precision in (
            *(("cpu", 1, "16-mixed"), ("auto", [2], "bf16-mixed"), ("gpu", -1, "bf16-mixed")),
            *(("cpu", 1, "64-true"), ("gpu", 1, 16)),
        )
    ],
}
REFUSED_WITHOUT = {
    "on cpu.*trainer.devices=1": [
        {"accelerator": "cpu", "devices": devices} for devices in (0, -1, [0], "0,", "a", None)
    ],
    "trainer.accelerator=auto": [{"accelerator": kind} for kind in ("gpu", "cuda", "mps", "tpu")],
    "trainer.strategy=auto": [
        {"accelerator": "cpu", "devices": 2, "strategy": name}
        for name in ("ddp_spawn", "ddp_fork", "ddp_notebook", "fsdp", "DDP", "", None)
    ],
}


@pytest.mark.parametrize(
    ("cards", "refused"), [(THREE_CARDS, REFUSED_WITH_CARDS), ((), REFUSED_WITHOUT)]
)
@pytest.mark.parametrize("find", [find_hardware, check_hardware])
def test_what_the_machine_does_not_have_is_refused(
    pretend: Pretend,
    find: Callable[..., object],
    cards: tuple[tuple[int, int], ...],
    refused: dict[str, list[dict[str, Any]]],
) -> None:
    pretend(*cards)
    for message, all_asked in refused.items():
        for asked in all_asked:
            with pytest.raises(ValueError, match=message) as caught:
                find(**asked)
            assert str(list(asked.values())[-1]) in str(caught.value)


def test_an_apple_gpu_is_one_and_computes_in_float32(pretend: Pretend) -> None:
    pretend(mps=True)
    for accelerator in ("auto", "gpu", "mps"):
        hardware = find_hardware(accelerator)  # type: ignore[arg-type]
        assert (hardware.kind, hardware.devices, hardware.precision) == ("mps", [0], "32-true")
    with pytest.raises(ValueError, match=r"trainer\.devices=2 on mps"):
        find_hardware("mps", 2)


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_precision_follows_the_processor(
    pretend: Pretend, monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: str
) -> None:
    monkeypatch.setattr("visual_search.training.devices.cpu_has_bf16", lambda: bf16)
    assert find_hardware().precision == expected
    assert find_hardware(precision="32-true").precision == "32-true"


@pytest.mark.parametrize(("amx", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_precision_of_what_convolves_by_channel_follows_amx(
    pretend: Pretend, monkeypatch: pytest.MonkeyPatch, amx: bool, expected: str
) -> None:
    monkeypatch.setattr("visual_search.training.devices.cpu_has_amx", lambda: amx)
    monkeypatch.setattr("visual_search.training.devices.cpu_has_bf16", lambda: True)
    assert find_hardware(by_channel=True).precision == expected
    assert find_hardware(precision="bf16-mixed", by_channel=True).precision == "bf16-mixed"
    pretend((9, 0))
    assert find_hardware(by_channel=True).precision == "bf16-mixed"


def test_a_runs_precision_is_asked_for_before_it_is_taken_over(pretend: Pretend) -> None:
    pretend(*THREE_CARDS)
    assert usable_precision("bf16-mixed", "gpu") == ("bf16-mixed", "")
    precision, reason = usable_precision("bf16-mixed", "gpu", [2])
    assert precision == "32-true"
    assert "card 2" in reason
    assert usable_precision("16-mixed", "cpu")[0] == "32-true"


def test_what_any_machine_has_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # a finished run is printed without torch
    monkeypatch.setattr(torch.cuda, "is_available", Mock(side_effect=AssertionError))
    check_hardware()
    check_hardware("cpu", 2)
    with pytest.raises(AssertionError):
        check_hardware("gpu")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_told_with_the_batch_and_what_to_set(error: Exception) -> None:
    message = r"cuda:0 .* 96 pictures.*loader\.batch_size=48"
    for training in (True, False):
        with (
            pytest.raises(DeviceMemoryError, match=message) as caught,
            memory_told(96, "cuda:0", training=training),
        ):
            raise error
        assert ("trainer.accumulate_grad_batches=2" in str(caught.value)) == training
        assert caught.value.__cause__ is error
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2$"), memory_told(1, "cpu"):
        raise RuntimeError("mat1 and mat2")  # another error stays what it is


def beside(device: str) -> Any:
    return SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device(device)), global_rank=0, world_size=1
    )


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [
        ("auto", "cuda:1", ("auto", 1)),
        ("gpu", "cuda:2", ("gpu", 2)),
        ("cpu", "cuda:1", ("cpu", 1)),
        ("auto", "cpu", ("cpu", 0)),  # the trainer was told to leave the cards alone
        ("gpu", "cpu", ("gpu", 0)),
        ("auto", "mps", ("cpu", 0)),
    ],
)
def test_searches_are_answered_where_the_trainer_computes(
    asked: Any, device: str, expected: tuple[str, int]
) -> None:
    assert index_place(asked, beside(device)) == expected


@pytest.mark.parametrize(("device", "pinned"), [("cuda:1", True), ("cpu", False), ("mps", False)])
def test_memory_is_pinned_for_the_trainers_device_whatever_the_machine_has(
    new_datamodule: NewDatamodule, pretend: Pretend, device: str, pinned: bool
) -> None:
    pretend(*THREE_CARDS)
    datamodule = new_datamodule()
    datamodule.trainer = beside(device)
    assert datamodule.test_dataloader().pin_memory == pinned


def test_float32_is_no_tf32(run_folder: Path) -> None:
    torch.backends.cudnn.allow_tf32 = True  # as torch starts
    build_trainer(folder=run_folder, max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.slow
def test_every_kind_of_objective_trains_on_two_devices(tmp_path: Path) -> None:
    """What a step leaves without gradients ends the second step, unless DDP looks for it."""
    command = [sys.executable, "-m", "tests.training.on_two_devices", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} 2 2" for name in KINDS]


@pytest.mark.parametrize(("by_launcher", "num_nodes"), [(("1", "2"), 2), (("2", "2"), 1)])
def test_devices_and_nodes_are_what_the_launcher_started(
    monkeypatch: pytest.MonkeyPatch, by_launcher: tuple[str, str], num_nodes: int
) -> None:
    per_node, num_processes = by_launcher
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", per_node)
    monkeypatch.setenv("WORLD_SIZE", num_processes)
    found = find_hardware("cpu", "auto")
    assert (found.devices, found.num_nodes) == (int(per_node), num_nodes)
    assert found.strategy == "ddp_find_unused_parameters_true"
    with pytest.raises(ValueError, match=r"torchrun started .* trainer=ddp"):
        find_hardware("cpu", 3)


@pytest.mark.parametrize("num_nodes", [0, -1, "two", 1.5])
def test_nodes_are_a_whole_number(num_nodes: object) -> None:
    with pytest.raises(ValueError, match=r"trainer\.num_nodes="):
        find_hardware("cpu", num_nodes=num_nodes)  # type: ignore[arg-type]
