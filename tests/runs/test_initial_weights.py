"""Runs that start from what an earlier one has learned."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.composing import typed
from tests.small_runs import run_here, small
from visual_search.config.builders import ConfigError
from visual_search.runs.identity import run_hash
from visual_search.runs.initial_weights import take_weights
from visual_search.runs.parts import Parts, load_module
from visual_search.runs.run import Run

NETWORK = ["model=residual", "model.width=8"]


def settings(*more: str):
    return typed("train", *small(Path("nowhere"), "objective=mse", *more, network=NETWORK))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_here(tmp_path_factory.mktemp("pretrained"), "objective=mse", network=NETWORK)


@pytest.mark.slow
def test_a_run_starts_from_another(
    pretrained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a vanishing rate the classifier's network ends where the autoencoder's encoder ended."""
    start = ["training.learning_rate=1e-12", f"training.start_from={pretrained.folder}"]
    run = run_here(tmp_path, *start, network=["model=residual_encoder", "model.width=8"])
    assert f"First weights from {pretrained.checkpoint}: " in capsys.readouterr().out
    ours = dict(load_module(run).model.named_parameters())
    theirs = dict(load_module(pretrained).model.named_parameters())
    assert len(ours) < len(theirs)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[f"encoder.{name}"], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_another_seed_takes_the_same_weights_and_the_rest_is_its_own(pretrained: Run) -> None:
    model = Parts(settings("seed=5")).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert "tensors" in take_weights(model, pretrained.folder)
    expected = load_module(pretrained).model.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert any(not torch.equal(value, expected[name]) for name, value in before.items())


@pytest.mark.slow
def test_networks_that_do_not_fit_are_refused_and_left_alone(pretrained: Run) -> None:
    wider = Parts(settings("model.width=16")).model
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    with pytest.raises(
        ConfigError, match=r"is \(1024, 512\) in the run and \(2048, 512\) here.*set model"
    ):
        take_weights(wider, pretrained.folder)
    for name, value in wider.state_dict().items():
        assert torch.equal(value, before[name])
    other = Parts(settings("model=plain_encoder")).model
    with pytest.raises(ConfigError, match=r"lacks 'maps\..*; choose model="):
        take_weights(other, pretrained.folder)


def test_an_autoencoder_takes_the_encoder_that_was_trained_alone(tmp_path: Path) -> None:
    encoder = Parts(settings("model=residual_encoder", "seed=7")).model
    whole = Parts(settings()).model
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    weights = {f"model.{name}": value for name, value in encoder.state_dict().items()}
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": weights}, tmp_path / "checkpoints" / "last.ckpt")
    taken = take_weights(whole, tmp_path)
    assert f"{len(weights)} of {len(before)} tensors of the network" in taken
    for name, value in whole.state_dict().items():
        inner = name.removeprefix("encoder.")
        wanted = encoder.state_dict()[inner] if name != inner else before[name]
        assert torch.equal(value, wanted), name


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"start_from=.*there is no .*last\.ckpt; expected"):
        take_weights(Parts(settings()).model, tmp_path)


@pytest.mark.slow
def test_the_hash_knows_what_a_run_starts_from_wherever_it_lies(
    pretrained: Run, tmp_path: Path
) -> None:
    shutil.copytree(pretrained.folder, tmp_path / "copy")
    here, there = (
        run_hash(settings(f"training.start_from={folder}"), "x")
        for folder in (pretrained.folder, tmp_path / "copy")
    )
    assert here == there != run_hash(settings(), "x")
