from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from tests.catalog.damaged_pictures import (
    DAMAGES,
    FORMATS,
    MAX_GROWTH_BYTES,
    SEED,
    damaged,
    decode_in_turns,
    fuzz,
    main,
    whole_files,
)
from visual_search.catalog.images import PictureError

EACH = len(FORMATS) * len(DAMAGES)  # files until format and damage come round again


@pytest.mark.slow
def test_1500_damaged_files_end_as_a_picture_or_a_picture_error() -> None:
    report = fuzz(1500)
    assert report.failures == []
    assert sum(report.outcomes.values()) == 1500
    for kind in FORMATS:
        for damage in DAMAGES:
            refused = report.outcomes[kind, damage, "refused"]
            assert refused >= 1, f"{kind}, {damage}: the damage is not felt"
            assert refused + report.outcomes[kind, damage, "picture"] >= 1500 // EACH
        assert sum(report.outcomes[kind, damage, "picture"] for damage in DAMAGES) >= 10
    assert report.growth_bytes <= MAX_GROWTH_BYTES


def test_the_whole_files_are_pictures() -> None:
    for kind, files in whole_files().items():
        for data in files:
            for number in range(0, 3 * EACH, EACH):  # stretched, in a letterbox, whole
                assert decode_in_turns(data, number).size, kind


def test_the_damage_is_what_it_is_called() -> None:
    wholes = whole_files()
    found = set()
    for number in range(4 * EACH):
        kind, damage, data = damaged(number, wholes)
        assert data == damaged(number, wholes)[2]
        found.add((kind, damage))
        same_start = [whole for whole in wholes[kind] if whole.startswith(data)]
        if damage == "cut":
            assert same_start
            assert all(len(data) < len(whole) for whole in same_start)
            continue
        changes = [
            [old ^ new for old, new in zip(whole, data, strict=True) if old != new]
            for whole in wholes[kind]
            if len(whole) == len(data)
        ]
        closest = min(changes, key=len)
        if damage == "one bit":
            assert [bin(change).count("1") for change in closest] == [1]
        else:
            assert len(closest) == 3
    assert found == {(kind, damage) for kind in FORMATS for damage in DAMAGES}
    assert damaged(7, wholes)[2] != damaged(7, wholes, SEED + 1)[2]


def goes_wrong(data: bytes, number: int) -> np.ndarray:
    """A decoder with every defect that must be noticed."""
    if number == 2:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 4:
        while True:
            pass
    if number == 6:
        time.sleep(3600)
    if number == 8:
        raise KeyError("a bug")
    if number == 10:
        raise PictureError
    if number == 12:
        os._exit(0)
    return np.ones(256 * 2**20 if number == 14 else 1, np.uint8)


@pytest.mark.slow
def test_a_crash_a_hang_and_another_error_are_failures() -> None:
    calls: list[tuple[int, int]] = []
    report = fuzz(
        16,
        decode_one=goes_wrong,
        max_cpu_s=3.0,
        max_wait_s=30.0,
        on_progress=lambda *call: calls.append(call),
    )
    names = [f"file {i} of seed {SEED} ({', '.join(damaged(i, FILES)[:2])})" for i in range(16)]
    assert report.failures == [
        f"{names[2]} ended the process by SIGSEGV",
        f"{names[4]} ended the process by SIGPROF",
        f"{names[6]} gave no answer for 30 s",
        f"{names[8]} raised KeyError: 'a bug'",
        f"{names[10]} no reason",
        f"{names[12]} ended the process with status 0",
    ]
    assert sum(report.outcomes.values()) == 10
    # Half of it: what the process had given back before is used again without a growth.
    assert report.growth_bytes >= 128 * 2**20
    assert calls[-1] == (16, 16)


FILES = whole_files()


@pytest.mark.slow
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--files", str(EACH)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : EACH + 1]] == list(np.repeat(FORMATS, 3))
    assert lines[EACH + 1].startswith(f"{EACH} files in ")


def test_the_command_writes_one_file(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["--write", "3"]) == 0
    assert capfdbinary.readouterr().out == damaged(3, FILES)[2]
