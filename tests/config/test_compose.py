from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from omegaconf import open_dict

from dropsearch.config.compose import compose_overrides, typed
from dropsearch.config.messages import known_keys, unknown_key
from dropsearch.config.schema import arguments
from dropsearch.core.errors import InputError
from tests.config.conftest import Compose, RawCompose


def test_a_configuration_becomes_plain_dataclasses(composed: Compose):
    config = composed("model=cnn", "model.channels=[8]", "study.n_trials=7")
    assert (arguments(config.model)["channels"], config.study.n_trials, config.study.name) == ([8], 7, "cnn-digits")
    assert config.output_dir == "outputs/cnn-digits"


def test_a_tilde_means_the_home_folder(composed: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert composed("output_dir='~/out'").output_dir == f"{tmp_path}/out"
    assert composed("study.storage='~/study.journal'").study.storage == f"{tmp_path}/study.journal"
    assert composed("study.warm_start='~/out'").study.warm_start == f"{tmp_path}/out"
    assert composed("study.storage='sqlite:///~/study.db'").study.storage == f"sqlite:///{tmp_path}/study.db"
    assert composed("tracking.uri='sqlite:///~/mlflow.db'").tracking.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert composed("study.storage='postgresql://host/~/x'").study.storage == "postgresql://host/~/x"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+foo=1"], '"foo" is not a key of the configuration'),
        (["+study.n_trails=1"], '(did you mean "study.n_trials"?)'),
        (
            ["+study.zzz=1"],
            "(study has allow_code_changes, n_trials, name, repeats, retry_failed, storage, timeout, warm_start)",
        ),
        (["study.name=${nope}"], "study.name must be a value or refer to an existing key"),
        (["study.name=${study.name}"], "cannot be resolved"),
        (["study.name=???"], "study.name must be set, but is missing"),
        (["~model"], "model._target_ must be set, but is missing"),
    ],
)
def test_what_only_shows_when_all_is_put_together_is_bad_input(raw: RawCompose, overrides: list[str], message: str):
    with pytest.raises(InputError) as caught:
        typed(raw(*overrides))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rates_may_bear_any_site_s_name(raw: RawCompose):
    config = raw("task=retrain", "retrain.arm=dropout", "+retrain.rates={net.a.dropout: 0.25}")
    with open_dict(config):  # on the command line # has a meaning of its own, in a file it has none
        config.retrain.rates["net.a.dropout#2"] = 0.5
    assert typed(config).retrain.rates == {"net.a.dropout": 0.25, "net.a.dropout#2": 0.5}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("n_trials", "study.n_trials"),
        ("lr", "space.lr"),
        ("modle", "model"),
        ("space.hihg", "space.high"),
        ("space.lr.lo", "space.lr.low"),
        ("trainr.max_epochs", "trainer.max_epochs"),
        ("output_dri", "output_dir"),
        ("hidden", "model.hidden"),
    ],
)
def test_a_misspelt_key_finds_the_one_that_was_meant(key: str, meant: str):
    assert f'(did you mean "{meant}"?)' in unknown_key(key)


def test_what_resembles_nothing_gets_no_suggestion():
    assert "did you mean" not in unknown_key("xyzzy")


def test_keys_reach_into_every_group():
    assert {"seed", "space.lr.low", "model._target_", "retrain.arm"} <= known_keys()


def test_composing_within_a_hydra_application_leaves_it_as_it_was(raw: RawCompose):
    assert compose_overrides(["model=cnn"]).model.name == "cnn"
    assert raw("model=rnn").model.name == "rnn"


def test_composing_tells_what_is_wrong_in_one_line():
    with pytest.raises(InputError, match="model must be one of cnn, mlp, rnn, transformer"):
        compose_overrides(["model=nope"])


@pytest.mark.parametrize("name", ["it's", 'a "b" (c', "x=[1", "größe, $HOME!", "a: {b}", "\\'"])
def test_the_hint_for_an_override_that_hydra_cannot_read_can_be_given(name: str):
    with pytest.raises(InputError, match="quote the value for Hydra as well, ") as caught:
        compose_overrides([f"study.name={name}"])
    (word,) = shlex.split(str(caught.value).partition("as well, ")[2])
    assert compose_overrides([word]).study.name == name
