import pytest

from visual_search.launcher import Launch, is_first_process, launch

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2",
    "RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1",
}  # fmt: skip
SRUN = {
    "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "2", "SLURM_LOCALID": "0",
    "SLURM_JOB_NAME": "train",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*TORCHRUN, *SRUN, "NODE_RANK"}:
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_a_process_that_nobody_launched_leads_alone() -> None:
    assert is_first_process()
    assert launch() is None


@pytest.mark.parametrize(("told", "by"), [(TORCHRUN, "torchrun"), (SRUN, "srun")])
def test_the_first_process_of_the_second_node_does_not_lead(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], by: str
) -> None:
    given(monkeypatch, told)
    assert launch() == Launch(by, 2, 2)
    assert not is_first_process()
    given(monkeypatch, dict.fromkeys(("RANK", "GROUP_RANK", "SLURM_PROCID"), "0"))
    assert is_first_process()


def test_a_process_that_lightning_started_on_this_machine_does_not_lead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given(monkeypatch, {"NODE_RANK": "0", "LOCAL_RANK": "1"})
    assert launch() is None
    assert not is_first_process()


@pytest.mark.parametrize(
    "told",
    [
        SRUN | {"SLURM_JOB_NAME": "interactive"},
        SRUN | {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "1"},
    ],
)
def test_one_task_or_a_shell_of_slurms_is_no_launch(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str]
) -> None:
    given(monkeypatch, told)
    assert launch() is None


@pytest.mark.parametrize(
    ("missing", "words"),
    [("SLURM_STEP_ID", "write srun"), ("SLURM_NTASKS_PER_NODE", "--ntasks-per-node")],
)
def test_what_would_wait_for_ever_is_refused(
    monkeypatch: pytest.MonkeyPatch, missing: str, words: str
) -> None:
    given(monkeypatch, {name: value for name, value in SRUN.items() if name != missing})
    with pytest.raises(ValueError, match=words):
        launch()
