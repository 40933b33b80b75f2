"""What a run consists of: built once, the same for built-in and user modules."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from dropsearch.config.check import remember
from dropsearch.config.command_line import with_user_targets
from dropsearch.core.errors import InputError
from dropsearch.core.printable import remember_secrets
from dropsearch.core.records import ARMS, TrialSpec
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.studies import fingerprint
from tests.experiment.conftest import LIGHT, composed


@pytest.fixture(scope="module")
def context() -> ExperimentContext:
    return build_context(composed(*LIGHT, "output_dir=out", "study.name=mine", "engine.processes=3"))


def test_a_context_is_frozen(context: ExperimentContext):
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.processes = 1  # type: ignore[misc]


def test_a_context_holds_what_follows_from_the_configuration(context: ExperimentContext):
    assert context.processes == 3
    assert context.checkpoints == Path("out").absolute() / "checkpoints" / "mine"
    assert context.searching_arms == ["dropout", "both"]
    assert [site.name for site in context.sites] == ["net.input.dropout", "net.hidden1.dropout"]
    assert context.modules.class_name == "dropsearch.models.mlp_classifier"
    assert context.rates_off == {}, "a built-in network has no rates of its own"


def test_a_study_knows_who_splits_its_data(context: ExperimentContext):
    given = ("model._target_=tests.user_modules.nets.LitNet", "data._target_=tests.user_modules.data.Digits")
    of_user = build_context(composed(*with_user_targets(given)))
    splits = [fingerprint(each, ARMS["none"])["confirm.split"] for each in (context, of_user)]
    assert splits == ["drawn by seed", "given by the data"]


def test_a_fingerprint_is_the_same_in_any_environment(context: ExperimentContext, monkeypatch: pytest.MonkeyPatch):
    found = [fingerprint(context, ARMS["dropout"])]
    monkeypatch.setattr("dropsearch.core.printable._known", {})
    for name in ("HUB_TOKEN", "DB_PASSWORD", "AUTH"):
        monkeypatch.setenv(name, "dropsearch.models.mlp_classifier")
    remember(context.config)
    found.append(fingerprint(context, ARMS["dropout"]))
    remember_secrets({}, os.environ)
    found.append(fingerprint(context, ARMS["dropout"]))
    assert found[0]["model._target_"] == "dropsearch.models.mlp_classifier"
    assert found[1:] == [found[0], found[0]]


def test_an_illegal_searched_value_fails_its_trial_and_no_other(context: ExperimentContext):
    spec = TrialSpec("none", 0, 0, {}, lr=1e-3, weight_decay=0.0, hyperparameters={"model.hidden": [0]})
    with pytest.raises(ValueError, match="hidden") as caught:
        context.make_module(spec)
    assert not isinstance(caught.value, InputError)
