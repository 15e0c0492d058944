"""What a command line may choose and set of Hydra's launchers and sweepers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from tests.composing import composed
from visual_search.cli.command_line import check_overrides, run_command
from visual_search.cli.sweep_plugins import LAUNCHERS, SAMPLERS, SWEEPERS, check_multirun
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
    ("overrides", "message"),
    [
        (["seed=1,2", "hydra.launcher._target_=os.system"], r"'os\.system'; expected what one of"),
        (["seed=1,2", "+hydra.launcher.x=1"], r"hydra\.launcher\.x is 1; expected no such key"),
        (["seed=1,2", "hydra.sweeper._target_=os.system"], r"'os\.system'; expected what one of"),
        (["seed=1,2", "hydra.sweeper.max_batch_size=0"], r"max_batch_size is 0; expected a whole"),
        (["hydra.sweeper.params={seed: 1}"], r"expected overrides of their own here.*-m seed=0"),
        (["training.learning_rate=interval(1e-4,1e-2)"], r"nothing can be listed.*sweep=optuna"),
        (["outputs=a,b"], r"outputs differs between the jobs \(a, b\).*outputs=DIR once"),
        (["seed=1,2", "trainer=ddp_cpu"], r"strategy=ddp within a multirun.*each without -m"),
        (["seed=1,2", "trainer.devices=2"], r"devices=2 within a multirun.*each without -m"),
        (["seed=1,2", "trainer.devices=auto"], r"devices=auto within a multirun"),
        (["seed=1,2", "trainer.strategy=ddp,auto"], r"strategy=ddp within a multirun"),
        (["sweep=jolib", "seed=1,2"], r"did you mean 'sweep=joblib'"),
    ],
)
def test_a_wrong_multirun_is_refused_before_it_starts(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(*overrides)


@needs_extra
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep=joblib", "hydra.launcher.n_jobs=0"], r"n_jobs is 0; expected a whole number"),
        (["sweep=joblib", "hydra.launcher.batch_size=x"], r"batch_size is 'x'.*n_jobs"),
        (["sweep=joblib", "hydra.launcher.pre_dispatch=all"], r"pre_dispatch is 'all'.*code"),
        (["sweep=joblib", "+hydra.launcher.initializer=x"], r"initializer is 'x'.*no such key"),
        (["sweep=optuna", "hydra.sweeper.n_trials=0"], r"n_trials is 0; expected a whole number"),
        (["sweep=optuna", "hydra.sweeper.direction=minimize"], r"'minimize'; expected maximize"),
        (["hydra/sweeper=optuna"], r"'minimize'; expected maximize.*sweep=optuna sets it"),
        (["sweep=optuna", "hydra.sweeper.max_failure_rate=2"], r"max_failure_rate is 2.*0 to 1"),
        (["sweep=optuna", "hydra.sweeper.storage=sqlite:///x"], r"storage is 'sqlite.*start code"),
        (
            ["sweep=optuna", "hydra.sweeper.storage={_target_: os.system}"],
            r"storage is .*os\.system.*start code",
        ),
        (
            ["sweep=optuna", "hydra.sweeper.custom_search_space=os.system"],
            r"custom_search_space is 'os\.system'.*start code",
        ),
        (
            ["sweep=optuna", "hydra.sweeper.sampler._target_=os.system"],
            r"sampler\._target_ is 'os\.system'.*tpe, random, cmaes",
        ),
        (["sweep=optuna", "+hydra.sweeper.sampler.x=1"], r"sampler\.x is 1.*no such key"),
        (
            [
                "sweep=optuna",
                "hydra/sweeper/sampler=cmaes",
                "hydra.sweeper.sampler.independent_sampler={_target_: os.system}",
            ],
            r"sampler\.independent_sampler is .*expected a number, a word",
        ),
        (["sweep=optuna", "experiment=glob(*)"], r"cannot search 'experiment=glob\(\*\)'"),
        (
            ["sweep=optuna", "training.evaluate_every_n_epochs=9", "trainer.max_epochs=3"],
            r"never be measured.*set training\.evaluate_every_n_epochs=3",
        ),
        (["sweep=optuna", "loader.batchsize=range(1,9)"], r"did you mean 'loader\.batch_size'"),
    ],
)
def test_of_an_extra_plain_settings_may_be_set_and_no_more(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check("seed=1,2", *overrides)


@needs_extra
def test_plain_settings_pass() -> None:
    check("sweep=joblib", "hydra.launcher.n_jobs=-1", "seed=1,2", "model=glob(*)")
    check("sweep=optuna", "seed=1,2,3", "hydra.sweeper.n_trials=5", "hydra.sweeper.sampler.seed=3")
    check("sweep=optuna", "hydra/sweeper/sampler=random", "training.learning_rate=interval(1,2)")
    check("sweep=optuna", "hydra/launcher=joblib", "hydra.sweeper.n_jobs=2", "seed=range(1,9)")


@needs_extra
def test_there_must_be_something_to_search() -> None:
    with pytest.raises(ConfigError, match=r"nothing to search; expected a key with its values"):
        check("sweep=optuna", "seed=1")


@needs_extra
@pytest.mark.parametrize("command", ["compare", "leaderboard"])
def test_commands_without_jobs_take_no_launcher(command: str) -> None:
    with pytest.raises(ConfigError, match=rf"for {command}: basic"):
        check("hydra/launcher=joblib", "seed=1,2", command=command)


@needs_extra
def test_evaluations_have_nothing_to_maximise() -> None:
    with pytest.raises(ConfigError, match=r"OptunaSweeper'; expected .* for evaluate: basic;"):
        check("hydra/sweeper=optuna", "query_split=val,test", command="evaluate")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("{hydra.job.env_set.X: 1}", r"params is .*none of Hydra's own"),
        ("{+hydra.job.env_set.X: 1}", r"params is .*none of Hydra's own"),
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


def test_a_launcher_file_of_ones_own_starts_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "hydra" / "launcher"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("_target_: os.system\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'os\.system'; expected what one of these"):
        check(f"hydra.searchpath=[file://{tmp_path}]", "hydra/launcher=mine", "seed=1,2")


def test_a_sweep_without_m_says_so() -> None:
    with pytest.raises(ConfigError, match=r"sweep=joblib is for several jobs.*add -m"):
        check_overrides("train", ["sweep=joblib", "seed=1"])


@pytest.mark.parametrize(
    ("override", "stored"),
    [("sweep=joblib", "launcher/joblib.yaml"), ("sweep=optuna", "sweeper/optuna.yaml")],
)
def test_without_the_extra_one_line_names_it(
    override: str,
    stored: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
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


@needs_extra
@pytest.mark.parametrize(
    ("part", "parts"), [("launcher", LAUNCHERS), ("sweeper", SWEEPERS), ("sampler", SAMPLERS)]
)
def test_the_lists_name_what_is_installed(part: str, parts: dict[str, object]) -> None:
    import hydra.utils

    for target in parts:
        assert isinstance(hydra.utils.get_class(target), type), part


def test_sweep_files_open_with_purpose_and_launch_command() -> None:
    files = sorted((config_folder() / "sweep").glob("*.yaml"))
    assert [path.stem for path in files] == ["joblib", "optuna"]
    for path in files:
        first, purpose, launch = path.read_text(encoding="utf-8").splitlines()[:3]
        assert first == "# @package _global_"
        assert len(purpose) > 20
        assert launch.startswith(f"# python -m visual_search.train -m sweep={path.stem} ")
