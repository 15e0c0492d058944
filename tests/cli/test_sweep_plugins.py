"""What a command line may choose and set of Hydra's launchers and sweepers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from tests.composing import composed
from visual_search.cli.command_line import check_overrides, run_command
from visual_search.cli.sweep_plugins import check_multirun
from visual_search.config.builders import ConfigError, config_folder, register_schema

HAS_EXTRA = all(importlib.util.find_spec(name) for name in ("hydra_plugins", "optuna"))
needs_extra = pytest.mark.skipif(
    not HAS_EXTRA, reason="needs pip install 'visual-search[sweeps]': joblib launcher, Optuna"
)


@pytest.fixture(autouse=True)
def schema() -> None:
    register_schema()


def check(*overrides: str, command: str = "train") -> None:
    check_overrides(command, ["-m", *overrides])


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["seed=1,2", "hydra.launcher._target_=os.system"], ["hydra.launcher._target_=os.system"]),
        (["seed=1,2", "+hydra.launcher.x=1"], ["hydra.launcher.x=1", "hydra.launcher.n_jobs"]),
        (["seed=1,2", "hydra.launcher.n_job=2"], ["mean 'hydra.launcher.n_jobs'"]),
        (["seed=1,2", "+hydra.launcher.n_jobs=2"], ["hydra.launcher.n_jobs is 2", "sweep="]),
        (["seed=1,2", "hydra.sweeper._target_=os.system"], ["hydra.sweeper._target_=os.system"]),
        (["seed=1,2", "hydra.sweeper.max_batch_size=0"], ["max_batch_size is 0"]),
        (["seed=1,2", "hydra={launcher: {_target_: os.system}}"], ["hydra={launcher"]),
        (["seed=1,2", "hydra.job.chdir=true"], ["hydra.job.chdir=true", "hydra.sweep.dir"]),
        (["seed=1,2", "~hydra.callbacks"], ["~hydra.callbacks"]),
        (["seed=1,2", "hydra.mode=RUN"], ["hydra.mode=RUN"]),
        (["seed=1,2", "hydra/launcher=joblib"], ["hydra/launcher=joblib", "sweep=", "joblib"]),
        (["seed=1,2", "hydra/sweeper=optuna"], ["hydra/sweeper=optuna", "[optuna,joblib]"]),
        (["seed=1,2", "hydra/sweeper/sampler=grid"], ["sampler=grid", "tpe, random, cmaes"]),
        (["seed=1,2", "hydra.searchpath=[pkg://os]"], ["pkg://os", "file://"]),
        (["hydra.sweeper.params={seed: 1}"], ["hydra.sweeper.params={seed: 1}", "-m seed=0"]),
        (["training.learning_rate=interval(1e-4,1e-2)"], ["interval(1e-4,1e-2)", "sweep=optuna"]),
        (["outputs=a,b"], ["a, b", "outputs=DIR"]),
        (["seed=1,2", "trainer=ddp_cpu"], ["strategy=ddp", "without -m"]),
        (["seed=1,2", "trainer.devices=2"], ["devices=2", "without -m"]),
        (["seed=1,2", "trainer.devices=auto"], ["devices=auto"]),
        (["seed=1,2", "trainer.strategy=ddp,auto"], ["strategy=ddp"]),
        (["sweep=jolib", "seed=1,2"], ["mean 'sweep=joblib'"]),
    ],
)
def test_a_wrong_multirun_is_refused_before_it_starts(
    overrides: list[str], named: list[str]
) -> None:
    with pytest.raises(ConfigError, match="expected") as error:
        check(*overrides)
    for part in named:
        assert part in str(error.value)


@needs_extra
@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["sweep=joblib", "hydra.launcher.n_jobs=0"], ["n_jobs is 0"]),
        (["sweep=joblib", "hydra.launcher.batch_size=x"], ["batch_size=x", "n_jobs"]),
        (["sweep=joblib", "hydra.launcher.pre_dispatch=all"], ["pre_dispatch=all"]),
        (["sweep=joblib", "+hydra.launcher.initializer=x"], ["initializer=x"]),
        (["sweep=optuna", "hydra.sweeper.n_trials=0"], ["n_trials is 0"]),
        (["sweep=optuna", "hydra.sweeper.direction=minimize"], ["direction=minimize"]),
        (["sweep=optuna", "hydra.sweeper.max_failure_rate=2"], ["max_failure_rate is 2", "0 to 1"]),
        (["sweep=optuna", "hydra.sweeper.storage=sqlite:///x"], ["storage=sqlite"]),
        (
            ["sweep=optuna", "hydra.sweeper.storage={_target_: os.system}"],
            ["storage={_target_: os.system}"],
        ),
        (
            ["sweep=optuna", "hydra.sweeper.custom_search_space=os.system"],
            ["custom_search_space=os.system"],
        ),
        (
            ["sweep=optuna", "hydra.sweeper.sampler._target_=os.system"],
            ["sampler._target_ is 'os.system'", "TPESampler"],
        ),
        (["sweep=optuna", "+hydra.sweeper.sampler.x=1"], ["sampler.x is 1", "no such key"]),
        (
            [
                "sweep=optuna",
                "hydra/sweeper/sampler=cmaes",
                "hydra.sweeper.sampler.independent_sampler={_target_: os.system}",
            ],
            ["sampler.independent_sampler", "os.system"],
        ),
        (["sweep=optuna", "experiment=glob(*)"], ["experiment=glob(*)"]),
        (
            ["sweep=optuna", "training.evaluate_every_n_epochs=9", "trainer.max_epochs=3"],
            ["training.evaluate_every_n_epochs=3"],
        ),
        (["sweep=optuna", "loader.batchsize=range(1,9)"], ["mean 'loader.batch_size'"]),
    ],
)
def test_of_an_extra_plain_settings_may_be_set_and_no_more(
    overrides: list[str], named: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        check("seed=1,2", *overrides)
    for part in named:
        assert part in str(error.value)


@needs_extra
def test_plain_settings_pass() -> None:
    check("sweep=joblib", "hydra.launcher.n_jobs=-1", "seed=1,2", "model=glob(*)")
    check("sweep=optuna", "seed=1,2,3", "hydra.sweeper.n_trials=5", "hydra.sweeper.sampler.seed=3")
    check("sweep=joblib", "hydra.sweep.dir=mine", "seed=1,2")
    check("sweep=optuna", "hydra/sweeper/sampler=random", "training.learning_rate=interval(1,2)")
    check("sweep=[optuna,joblib]", "hydra.sweeper.n_jobs=2", "seed=range(1,9)")


@needs_extra
def test_there_must_be_something_to_search() -> None:
    with pytest.raises(ConfigError, match=r"nothing to search; expected a key with its values"):
        check("sweep=optuna", "seed=1")


@needs_extra
@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("compare", ["+sweep=joblib", "seed=1,2"]),
        ("leaderboard", ["+sweep=joblib", "seed=1,2"]),
        ("evaluate", ["sweep=optuna", "query_split=val,test"]),  # nothing to maximise
    ],
)
def test_a_command_takes_the_sweeps_that_it_can_hold(command: str, given: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"{command} .*{given[0].lstrip('+')}.*expected"):
        check(*given, command=command)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("{hydra.job.env_set.X: 1}", r"params is .*env_set"),
        ("{+hydra.job.env_set.X: 1}", r"params is .*env_set"),
        ("{seed: '1,2', loader.batchsize: 3}", r"did you mean 'loader\.batch_size'"),
    ],
)
def test_ranges_in_a_file_are_checked_as_those_typed(
    params: str, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    text = f"# @package _global_\nhydra: {{sweeper: {{params: {params}}}}}\n"
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        check(f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine")


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("{mode: MULTIRUN}", "hydra.mode is 'MULTIRUN'"),
        ("{launcher: {_target_: os.system}}", "hydra.launcher._target_ is 'os.system'"),
        ("{job: {env_set: {PYTHONPATH: x}}}", "hydra.job.env_set.PYTHONPATH is 'x'"),
        ("{job_logging: {version: 1, root: {level: INFO}}}", "hydra.job_logging"),
        ("{sweep: {subdir: ../../x}}", "hydra.sweep.subdir is '../../x'"),
    ],
)
def test_a_file_of_ones_own_starts_nothing_else(part: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = f"# @package _global_\nhydra: {part}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="expected") as error:
        check(f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine", "seed=1,2")
    assert named in str(error.value)


def test_a_launcher_of_ones_own_is_not_chosen(tmp_path: Path) -> None:
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "hydra" / "launcher" / "mine.yaml").write_text("_target_: os.system\n")
    text = "# @package _global_\ndefaults:\n  - override /hydra/launcher: mine\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hydra\.launcher\._target_ is 'os\.system'"):
        check(f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine", "seed=1,2")


def test_a_sweep_without_m_says_so() -> None:
    with pytest.raises(ConfigError, match=r"sweep=joblib is for several jobs.*add -m"):
        check_overrides("train", ["sweep=joblib", "seed=1"])


@pytest.mark.parametrize(
    ("override", "stored"),
    [("sweep=joblib", "launcher/joblib.yaml"), ("sweep=optuna", "sweeper/optuna.yaml")],
)
def test_without_the_extra_one_line_names_it(
    override: str, stored: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Plugins.instance()  # puts the options of what is installed into the store
    group, name = stored.split("/")
    options = ConfigStore.instance().repo["hydra"][group]
    if name in options:
        monkeypatch.delitem(options, name)
    monkeypatch.setattr("sys.argv", ["train", "-m", override, "seed=1,2"])
    with pytest.raises(SystemExit, match="2"):
        run_command("train", lambda config: pytest.fail("it started"))
    error = capsys.readouterr().err
    assert "run: pip install 'visual-search[sweeps]'" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("devices", ["1", "'0,'", "[3]"])
def test_one_device_of_several_may_be_named(devices: str) -> None:
    check_multirun(composed("train", f"trainer.devices={devices}"))


def test_sweep_files_open_with_purpose_and_launch_command() -> None:
    files = sorted((config_folder() / "sweep").glob("*.yaml"))
    assert [path.stem for path in files] == ["joblib", "optuna", "slurm"]
    for path in files:
        first, purpose, launch = path.read_text(encoding="utf-8").splitlines()[:3]
        assert first == "# @package _global_"
        assert len(purpose) > 20
        assert launch.startswith(f"# python -m visual_search.train -m sweep={path.stem} ")


def test_a_multirun_that_torchrun_started_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(ConfigError, match="torchrun with 2 processes within a multirun"):
        check_multirun(composed("train"))
