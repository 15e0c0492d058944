from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from tests.catalog.damaged_pictures import (
    DAMAGES,
    FORMATS,
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
def test_damaged_files_are_pictures_or_picture_errors(capsys: pytest.CaptureFixture[str]) -> None:
    number = 40 * EACH
    assert main(["--files", str(number)]) == 0  # none failed, and memory grew within its limit
    lines = capsys.readouterr().out.splitlines()
    assert lines[EACH + 1].startswith(f"{number} files in ")
    pictures = dict.fromkeys(FORMATS, 0)
    for place, line in enumerate(lines[1 : EACH + 1]):
        kind, *damage, read, refused = line.split()
        assert (kind, " ".join(damage)) == (FORMATS[place // 3], DAMAGES[place % 3])
        assert int(refused) >= 1, f"{line}: the damage is not felt"
        assert int(read) + int(refused) == 40
        pictures[kind] += int(read)
    assert min(pictures.values()) >= 10


def test_the_whole_files_are_pictures() -> None:
    for kind, files in whole_files().items():
        for data in files:
            for number in range(0, 3 * EACH, EACH):  # stretched, in a letterbox, whole
                assert decode_in_turns(data, number).size, kind


def test_the_damage_is_what_it_is_called(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    found, wholes = set(), whole_files()
    for number in range(4 * EACH):
        kind, damage, data = damaged(number, wholes)
        assert data == damaged(number, wholes)[2]
        found.add((kind, damage))
        if damage == "cut":
            whole = [whole for whole in wholes[kind] if whole.startswith(data)]
            assert 0 < len(whole) == sum(len(data) < len(each) for each in whole)
            continue
        changes = [
            [old ^ new for old, new in zip(whole, data, strict=True) if old != new]
            for whole in wholes[kind]
            if len(whole) == len(data)
        ]
        closest = min(changes, key=len)
        assert len(closest) == {"one bit": 1, "three bytes": 3}[damage]
        assert damage != "one bit" or closest[0].bit_count() == 1
    assert len(found) == EACH
    assert damaged(7, wholes)[2] != damaged(7, wholes, SEED + 1)[2]
    assert main(["--write", "3"]) == 0
    assert capfdbinary.readouterr().out == damaged(3, wholes)[2]


def goes_wrong(data: bytes, number: int) -> np.ndarray:
    """A decoder with every defect that must be noticed."""
    if number == 1:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    while number == 2:
        pass
    if number == 3:
        raise KeyError("a bug")
    if number == 4:
        raise PictureError
    if number == 6:  # the last one: no other process is started after it
        os._exit(0)
    return np.ones(64 * 2**20 if number == 5 else 1, np.uint8)


def hangs(data: bytes, number: int) -> np.ndarray:
    time.sleep(3600)
    return np.ones(1, np.uint8)


@pytest.mark.slow
def test_a_crash_a_hang_and_another_error_are_failures() -> None:
    wholes = whole_files()
    names = [f"file {i} of seed {SEED} ({', '.join(damaged(i, wholes)[:2])})" for i in range(7)]
    report = fuzz(7, decode_one=goes_wrong, max_cpu_s=1.0)
    assert report.failures == [
        f"{names[1]} ended the process by SIGSEGV",
        f"{names[2]} ended the process by SIGPROF",
        f"{names[3]} raised KeyError: 'a bug'",
        f"{names[4]} no reason",
        f"{names[6]} ended the process with status 0",
    ]
    assert sum(report.outcomes.values()) == 2
    # Half of it: what the process had given back before is used again without a growth.
    assert report.growth_bytes >= 32 * 2**20
    report = fuzz(1, decode_one=hangs, max_wait_s=0.5)
    assert report.failures == [f"{names[0]} ended the process by SIGALRM"]
