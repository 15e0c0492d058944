"""Every YAML under conf/: composed, and bound to the signature of what it names.

Also what a wrong config or override is answered with.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from visual_search.catalog.splits import assign_splits
from visual_search.cli import command_line
from visual_search.cli.command_line import HYDRA_VERSION_BASE, check_overrides, with_keys
from visual_search.cli.help import explanations
from visual_search.cli.sources import entries
from visual_search.config.builders import (
    GROUPS,
    SUPPLIED,
    ConfigError,
    bind,
    build,
    builders,
    config_folder,
    register_schema,
)
from visual_search.config.hints import SYNONYMS
from visual_search.config.schemas import (
    SCHEMAS,
    EmbeddingConfig,
    SplitConfig,
    TrainingConfig,
    parts_of,
)
from visual_search.models.embedding import EmbeddingSettings
from visual_search.training.optimization import Optimization

CONF = config_folder()
FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))
COMMANDS = sorted(path for path in FILES if "/" not in path)
# These set Hydra's own part, which is not in the composed config: tests/cli/test_sweep_plugins.py.
OF_HYDRA = ("launch/", "sweep/")
OPTIONS = sorted(path for path in FILES if "/" in path and not path.startswith(OF_HYDRA))
GLOBAL_GROUPS = ("budget", "debug", "experiment")  # their files change any part of the config
SEVERAL = ("callbacks", "logger")  # groups that name builders one level down
OF_ANOTHER_COMMAND = {"embedder": "evaluate"}  # groups that training has not
WHAT_THE_USER_MUST_SAY = {
    "embedder/mteb": ["embedder.model=x"],
    "embedder/sentence_transformers": ["embedder.model=x"],
    "embedder/timm": ["embedder.model=x"],
    "data/amazon_berkeley_objects": ["data.root=x"],
    "data/coco": ["data.root=x"],
    "data/complete_the_look": ["data.path=x.tsv", "data.pictures=x"],
    "data/complete_the_look_crops": ["data.path=x.zip"],
    "data/deepfashion2": ["data.root=x"],
    "data/deepfashion_consumer2shop": ["data.root=x"],
    "data/deepfashion_inshop": ["data.root=x"],
    "data/fashion_product_images": ["data.root=x"],
    "data/fashionpedia": ["data.root=x"],
    "data/folder": ["data.root=x"],
    "data/hm": ["data.root=x"],
    "data/lookbench": ["data.path=x"],
    "data/open_metric_learning": ["data.path=x.csv"],
    "data/parquet": ["data.path=x.parquet"],
    "data/shop_the_look": ["data.path=x.json", "data.categories=y.json", "data.pictures=x"],
    "data/polyvore_outfits": ["data.root=x"],
    "data/shopee": ["data.path=x"],
    "data/stanford_online_products": ["data.root=x"],
    "data/table": ["data.path=x.csv"],
    "data/webdataset": ["data.path=x.tar"],
    "experiment/best_attributes": ["objective.columns=[category]"],
    "experiment/multi_head": ["objective.columns=[category]"],
    "objective/multi_head": ["objective.columns=[category]"],
    "experiment/reference/plus_layer": ["data.path=x.tsv", "data.pictures=x"],
    "model/backbone": ["model.name=test_resnet"],
    "protocol/category_restricted": ["protocol.relevance=[colour]"],
    "protocol/cross_domain": [
        "protocol.column=source",
        "protocol.query_value=scene",
        "protocol.gallery_value=product",
    ],
    "split/cold_start_newest": ["split.order_by=year"],
}
LAUNCH = re.compile(r"python -m visual_search\.(\w+) +(\S.*)")


@pytest.fixture(autouse=True)
def schema() -> None:
    register_schema()


@pytest.fixture
def own_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ that a test may spoil."""
    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder)
    monkeypatch.setattr(command_line, "config_folder", lambda: folder)
    return folder


def _compose(*overrides: str, command: str = "train") -> DictConfig:
    with initialize_config_dir(str(CONF), version_base=HYDRA_VERSION_BASE):
        return compose(command, overrides=list(overrides))


@functools.cache
def _chosen(path: str) -> DictConfig:
    """Returns a command's config, or that of a training with one option, with Hydra's own node."""
    group, slash, option = path.removesuffix(".yaml").partition("/")
    said = WHAT_THE_USER_MUST_SAY.get(f"{group}/{option}", [])
    with initialize_config_dir(str(CONF), version_base=HYDRA_VERSION_BASE):
        return compose(
            OF_ANOTHER_COMMAND.get(group, "train") if slash else group,
            overrides=[f"{group}={option}", *said] if slash else [],
            return_hydra_config=True,
        )


def _with_option(path: str) -> dict[str, Any]:
    """Returns the same as plain containers, without Hydra's node."""
    config = _chosen(path).copy()
    with open_dict(config):
        del config["hydra"]
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _nodes(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Returns each node that names a builder, with its group."""
    for group in GROUPS:
        node = config.get(group)
        if node is None or not (group in SEVERAL or "_target_" in node):
            continue
        if group in SEVERAL:
            yield from ((group, entry) for entry in node.values() if entry is not None)
        else:
            yield group, node


def _targets(node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if key == "_target_":
            yield value
        yield from _targets(value)


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if key != "_target_":
            yield f"{prefix}{key}"
        yield from _keys(value, f"{prefix}{key}.")


def _depth(node: Any) -> int:
    return 1 + max(map(_depth, node.values()), default=0) if isinstance(node, dict) else 0


def _launch_commands(path: str) -> list[tuple[str, str]]:
    """Returns command and arguments of each line that a file shows a reader to type."""
    return LAUNCH.findall((CONF / path).read_text(encoding="utf-8"))


def test_every_file_is_found() -> None:
    assert {path.removesuffix(".yaml") for path in COMMANDS} == set(SCHEMAS)
    assert {path.partition("/")[0] for path in OPTIONS} == {*GROUPS, *GLOBAL_GROUPS, "split"}
    assert not list(CONF.rglob("*.yml"))


@pytest.mark.parametrize("path", COMMANDS)
def test_command_binds(path: str) -> None:
    command = path.removesuffix(".yaml")
    config = _with_option(path)
    assert set(config) == {field.name for field in dataclasses.fields(SCHEMAS[command])}
    bound = [bind(group, node) for group, node in _nodes(config)]
    assert bool(bound) == (
        command in ("train", "check", "mteb")
    )  # the others ask for a run's, or a choice


@pytest.mark.parametrize(
    "path", [path for path in OPTIONS if path.startswith(("data/", "protocol/", "split/"))]
)
def test_evaluation_takes_the_option(path: str) -> None:
    group, _, option = path.removesuffix(".yaml").partition("/")
    said = WHAT_THE_USER_MUST_SAY.get(f"{group}/{option}", [])
    config = _compose(f"{group}={option}", *said, command="evaluate")
    expected = _compose(f"{group}={option}", *said)
    assert config[group] == expected[group]


@pytest.mark.parametrize("path", [*COMMANDS, *OPTIONS])
def test_every_key_is_explained(path: str) -> None:
    group, slash, _ = path.removesuffix(".yaml").partition("/")
    command = OF_ANOTHER_COMMAND.get(group, "train") if slash else group
    explained = explanations(command, _chosen(path))
    keys = list(_keys(_with_option(path)))
    assert len(keys) >= 3
    assert [key for key in keys if key not in explained] == []


@pytest.mark.parametrize("command", SCHEMAS)
def test_a_schema_says_what_each_of_its_keys_is_for(command: str) -> None:
    parts = [SCHEMAS[command]]
    for schema in parts:
        names = [field.name for field in dataclasses.fields(schema)]
        assert sorted(entries(schema.__doc__ or "")) == sorted(names), schema
        parts += parts_of(schema).values()


@pytest.mark.parametrize("path", OPTIONS)
def test_an_option_binds_and_changes_what_its_group_is_for(path: str) -> None:
    config = _with_option(path)
    command = OF_ANOTHER_COMMAND.get(path.partition("/")[0], "train")
    assert set(config) == {field.name for field in dataclasses.fields(SCHEMAS[command])}
    nodes = list(_nodes(config))
    assert len(nodes) >= (4 if command == "train" else 1)
    for group, node in nodes:
        builder, arguments = bind(group, node)
        inspect.signature(builder).bind_partial(**arguments)
    assert _depth(config) <= 3
    # Nothing is named that nobody binds.
    assert sorted(_targets(config)) == sorted(node["_target_"] for _, node in nodes)
    own = OmegaConf.load(CONF / path)
    assert isinstance(own, DictConfig)
    defaults = own.pop("defaults", [])
    whole = config if path.startswith(GLOBAL_GROUPS) else config[path.partition("/")[0]]
    _assert_holds(whole, OmegaConf.to_container(own), path)
    for entry in defaults:
        if isinstance(entry, DictConfig):
            (key, option) = next(iter(entry.items()))
            group = str(key).removeprefix("override ").strip("/")
            chosen = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))
            assert isinstance(chosen, dict)
            changed = own.get(group) or {}  # by the file itself, on top of the option
            kept = {name: value for name, value in chosen.items() if name not in changed}
            _assert_holds(config[group], kept, path)


def _assert_holds(whole: Any, part: Any, path: str) -> None:
    for key, value in part.items():
        if isinstance(value, dict):
            _assert_holds(whole[key], value, path)
        elif "${" in str(value):  # resolved by now
            assert whole[key] != value, f"{path}: {key}"
        elif value != "???":
            assert whole[key] == value, f"{path}: {key}"


@pytest.mark.parametrize("path", [path for path in OPTIONS if path.startswith(GLOBAL_GROUPS)])
def test_file_opens_with_its_purpose_and_its_launch_command(path: str) -> None:
    lines = (CONF / path).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    assert re.match(r"# \w.{20,}", lines[1])
    assert not LAUNCH.search(lines[1])
    ((command, arguments),) = _launch_commands(path)
    assert command == "train"
    assert path.removesuffix(".yaml").replace("/", "=", 1) in shlex.split(arguments)


@pytest.mark.slow
def test_launch_commands_compose() -> None:
    found = {launch: path for path in FILES for launch in _launch_commands(path)}
    assert len(found) >= 14
    for (command, arguments), path in found.items():
        try:
            check_overrides(command, with_keys(command, shlex.split(arguments)))
        except ConfigError as error:
            pytest.fail(f"{path}: {command} {arguments}: {error}")


def test_every_builder_can_be_imported_and_says_its_arguments() -> None:
    targets = [(group, target) for group in GROUPS for target in builders(group)]
    assert len(targets) >= 27
    for group, target in targets:
        # What it needs is missing; that it is missed shows that it was found.
        try:
            bind(group, {"_target_": target})
        except ConfigError as error:
            assert "is not set" in str(error), error  # noqa: PT017 - both ways are right
            continue
        if target.startswith("visual_search"):
            with pytest.raises(ConfigError, match=r"\.any_keyword is no argument"):
                bind(group, {"_target_": target, "any_keyword": 1})


def test_what_commands_supply_are_arguments() -> None:
    assert set(SUPPLIED) <= set(GROUPS)
    trainer, _ = bind("trainer", {"_target_": builders("trainer")[0], "max_epochs": 1})
    assert SUPPLIED["trainer"] < set(inspect.signature(trainer).parameters)


def test_schemas_have_the_arguments_and_defaults_of_what_they_are_for() -> None:
    fields = {field.name for field in dataclasses.fields(SplitConfig)}
    arguments = set(list(inspect.signature(assign_splits).parameters)[1:])  # after a catalogue
    assert fields == arguments | {"allow_few"}  # which training asks
    for part, own in (
        (TrainingConfig(), Optimization()),
        (EmbeddingConfig(), EmbeddingSettings()),
    ):
        assert dataclasses.asdict(own).items() <= dataclasses.asdict(part).items()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_logger_of_an_extra_binds_without_the_extra(name: str) -> None:
    _, arguments = bind("logger", _with_option(f"logger/{name}.yaml")["logger"][name])
    assert arguments


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_epoch=3", r"trainer\.max_epoch\b.*did you mean 'trainer\.max_epochs'"),
        ("loader.batchsize=3", r"loader\.batchsize\b.*did you mean 'loader\.batch_size'"),
        ("callbacks.projecton=null", r"did you mean 'callbacks\.projection'"),
        ("experiment=plus_layr", r"experiment.plus_layr\b.*did you mean 'experiment.plus_layer'"),
        ("data=tabel", r"data.tabel\b.*fashion_mnist.*did you mean 'data.table'"),
        ("exprement=baseline", r"exprement\b.*did you mean 'experiment'"),
        ("epochs=3", r"epochs\b.*did you mean 'trainer\.max_epochs'"),
        ("training.lr=1", r"did you mean 'training\.learning_rate'"),
        ("lr=1", r"did you mean 'training\.learning_rate'"),
        ("wd=1", r"did you mean 'training\.weight_decay'"),
        ("optim=adam", r"did you mean 'training\.optimizer'"),
        ("data.batchSize=3", r"did you mean 'loader\.batch_size'"),
        ("num_workers=3", r"did you mean 'loader\.num_workers'"),
        ("gpus=2", r"did you mean 'trainer\.devices'"),
        ("image_size=3", r"did you mean 'pictures\.size_px'"),
        ("random_seed=3", r"did you mean 'seed'"),
        ("device=cuda", r"did you mean 'trainer\.accelerator'"),
        ("trainer.seed=3", r"did you mean 'seed'"),
        ("optimizer.name=sgd", r"did you mean 'training\.optimizer'"),
        ("split.val=0.1", r"did you mean 'split\.val_fraction'"),
        ("test_size=0.1", r"did you mean 'split\.test_fraction'"),
        ("wandb=true", r"did you mean 'logger=wandb'"),
        ("freeze=true", r"; model=backbone has it, as model\.frozen"),
        ("model.freeze=true", r"; model=backbone has it, as model\.frozen"),
        ("model.latent_dim=3", r"; model=backbone, .*residual.* has it, as model\.embedding_dim"),
        ("path=products.csv", r"; data=.*table.* has it, as data\.path"),
        ("early_stopping=true", r"early_stopping is no setting.*; .*trainer\.max_epochs"),
        ("trainer.patience=3", r"trainer\.patience is no setting.*; .*trainer\.max_epochs"),
        ("fold=1", r"fold is no setting.*; .*-m split\.seed=0,1,2"),
        ("dropout=0.1", r"dropout is no setting.*; .*docs/extending\.md"),
        ("debug=true", r"'debug=true'.*expected one of fast, overfit, profile"),
        ("model.embedding_dim=3", r"; model=backbone, .*residual.* has it"),
        ("temperature=3", r"; objective=.*simclr.* has it, as objective\.temperature"),
        ("loader.batch_size=abc", r"(?s)(?=.*loader\.batch_size)(?=.*'abc')"),
        ("seed=1.5", r"(?s)(?=.*seed)(?=.*1\.5)"),
        ("pictures=letterbox", r"(?s)(?=.*pictures)(?=.*letterbox)"),
        ("loader.batch_size", r"loader\.batch_size"),
        ("lodaer.batch_size=3", r"lodaer\.batch_size\b.*did you mean 'loader\.batch_size'"),
        ("+epochs=3", r"epochs is no setting; expected one of name, seed"),
        ("+loader.batchsize=3", r"loader\.batchsize is no setting.*did you mean 'batch_size'"),
        ("outputs=${outptus}/x", r"outputs refers to \$\{outptus\}.*write \\\$\{"),
        ("data.root=${x.y}", r"data\.root refers to \$\{x\.y\}"),
        ("seed=~1", r"cannot read 'seed=~1'.*needs quotes"),
        ("+hydra.callbacks.x={_target_: shutil.rmtree}", r"hydra\.callbacks\.x=.*start code"),
        ("+hydra.job.env_set.PYTHONPATH=x", r"hydra\.job\.env_set\.PYTHONPATH=x.*start code"),
        ("--config-dir=x", r"--config-dir is not offered here.*hydra\.searchpath"),
        ("--experimental-rerun=x", r"--experimental-rerun is not offered here"),
        ("--epochs=3", r"unknown option '--epochs=3'.*drop the leading dashes"),
    ],
)
def test_wrong_override_names_the_key_and_the_nearest_right_one(
    override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_overrides("train", ["seed=1", override])


def test_a_key_that_a_chosen_file_lacks_is_told_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match=r"data\.path is no setting.*data\.root"):
        check_overrides("check", ["data=fashion_product_images", "data.path=x.zip"])


def test_a_key_that_other_files_have_is_told_with_them() -> None:
    with pytest.raises(ConfigError, match=r"; data=.*folder.*table.* has it") as refused:
        check_overrides("train", ["data=synthetic", "data.on_bad_item=skip"])
    assert "did you mean" not in str(refused.value)
    with pytest.raises(ConfigError, match="expected none"):
        check_overrides("train", ["model.dropout=0.5"])  # of a network without a setting


def test_every_synonym_leads_to_a_setting() -> None:
    names = {key.rpartition(".")[2] for key in _keys(OmegaConf.to_container(_compose()))}
    names |= {str(name) for path in CONF.glob("*/*.yaml") for name in OmegaConf.load(path)}
    names |= {path.name for path in CONF.iterdir()}
    assert set(SYNONYMS.values()) <= names
    # What is a setting means itself, but for two that, alone, mean the trainer and a table.
    assert set(SYNONYMS) & names <= {"device", "csv"}


def test_a_key_of_swept_files_is_told_how_to_be_given() -> None:
    """A network's own setting, in a multirun over experiments that all have this network."""
    jobs = ["-m", "experiment=residual,simclr"]
    with pytest.raises(ConfigError, match=r"model\.width is no setting.*give \+\+model\.width=8"):
        check_overrides("train", [*jobs, "model.width=8"])
    check_overrides("train", [*jobs, "++model.width=8"])


def test_a_wrong_job_of_a_multirun_is_found_before_the_first_starts() -> None:
    check_overrides("train", ["-m", "experiment=baseline,plus_layer"])
    with pytest.raises(ConfigError, match=r"experiment.plus_layr"):
        check_overrides("train", ["-m", "experiment=baseline,plus_layr"])


def test_help_and_completion_are_not_checked() -> None:
    for arguments in (["--help"], ["-sc", "query=bash"], ["--cfg", "job"]):
        check_overrides("train", arguments)
    with pytest.raises(ConfigError, match="epochs is no setting"):
        check_overrides("train", ["--cfg", "job", "epochs=3"])


def test_file_without_the_package_line_is_an_error(own_conf: Path) -> None:
    text = (own_conf / "experiment/baseline.yaml").read_text(encoding="utf-8")
    check_overrides("train", ["experiment=baseline"])
    (own_conf / "experiment/mine.yaml").write_text(text.partition("\n")[2], encoding="utf-8")
    message = r"experiment/mine\.yaml does not start with '# @package _global_'.*add it"
    with pytest.raises(ConfigError, match=message):
        check_overrides("train", ["experiment=mine"])
    (own_conf / "experiment/mine.yaml").write_text("trainer: {max_epochs: 3}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        check_overrides("train", ["experiment=mine"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainr: {max_epochs: 3}", r"experiment.mine.*trainr.*did you mean 'trainer'"),
        ("loader: {batch_size: abc}", r"experiment.mine.*abc"),
        ("defaults: [{override /model: baselin}]", r"baselin\b.*did you mean 'model.baseline'"),
        ("loader: [3", r"experiment/mine\.yaml"),
        (
            "hydra: {callbacks: {x: {_target_: shutil.rmtree, path: x}}}",
            r"hydra\.callbacks\.x\._target_ is 'shutil\.rmtree'.*start code",
        ),
        ("defaults: [{override /modl: baseline}]", r"experiment.mine.*modl.*did you mean 'model'"),
    ],
)
def test_wrong_file_is_named_with_the_nearest_right_key(
    own_conf: Path, text: str, message: str
) -> None:
    (own_conf / "experiment/mine.yaml").write_text(
        f"# @package _global_\n{text}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=message):
        check_overrides("train", ["experiment=mine"])


FOLDER = "visual_search.catalog.readers.folder.folder"
MODEL, TRAINER = builders("model")[0], builders("trainer")[0]
MISSPELT = "visual_search.models.variants.plus_layr"


@pytest.mark.parametrize(
    ("group", "node", "message"),
    [
        ("model", {"_target_": "os.system"}, r"model\._target_='os\.system' is not a builder"),
        ("model", {"_target_": FOLDER}, r"is not a builder that a config may name"),
        ("model", {"_target_": MISSPELT}, r"did you mean 'visual_search\..*\.plus_layer'"),
        ("model", {}, r"model names no builder.*choose model=\.\.\. from conf/model/"),
        ("model", None, r"model names no builder"),
        ("model", {"_target_": MODEL, "_partial_": True}, r"model\._partial_ is no argument"),
        ("data", {"_target_": FOLDER, "rot": "x"}, r"data\.rot is no argument.*mean 'root'"),
        ("data", {"_target_": FOLDER, "root": 3}, r"data\.root=3 is of a wrong type \(int\)"),
        ("data", {"_target_": FOLDER, "root": "???"}, r"data\.root is not set.*data\.root=VALUE"),
        ("data", {"_target_": FOLDER}, r"data\.root is not set"),
        ("data", {"_target_": FOLDER, "root": "x", "on_bad_item": "skp"},
         r"data\.on_bad_item='skp'.*'error', 'skip' or 'skip_any'"),
        ("trainer", {"_target_": TRAINER, "max_epochs": 1, "folder": "x"},
         r"trainer\.folder is no argument"),
    ],
)  # fmt: skip
def test_wrong_node_is_refused(group: str, node: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bind(group, node)
    with pytest.raises(ConfigError, match=message):
        build(group, node)


def test_a_refused_target_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        pytest.fail(f"imported {name}")

    monkeypatch.setattr("importlib.import_module", load)
    with pytest.raises(ConfigError, match="is not a builder"):
        build("model", {"_target_": "antigravity.open"})
