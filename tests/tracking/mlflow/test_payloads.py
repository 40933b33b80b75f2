from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.core.records import Confirmed, EpochMetrics
from dropsearch.tracking.mlflow import payloads
from tests.tracking.tracked_studies import make_curve, make_result, make_spec, make_summary

texts = st.text(max_size=300)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
configs = st.dictionaries(texts, st.recursive(leaves, lambda below: st.dictionaries(texts, below, max_size=3)))


@given(st.lists(texts, min_size=1, max_size=3))
def test_mlflow_takes_any_key(parts: list[str]):
    from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_metric_name, _validate_param_name

    name = payloads.key(*parts)
    _validate_param_name(name)
    _validate_metric_name(name)
    assert 0 < len(name) <= MAX_ENTITY_KEY_LENGTH


def test_our_limits_are_mlflows():
    from mlflow.utils import validation

    limits = (validation.MAX_ENTITY_KEY_LENGTH, validation.MAX_PARAM_VAL_LENGTH, validation.MAX_TAG_VAL_LENGTH)
    assert limits == (payloads.KEY_LENGTH, payloads.PARAM_LENGTH, payloads.TAG_LENGTH)


def test_long_keys_that_differ_at_their_end_stay_different():
    assert payloads.key("x" * 300 + "a") != payloads.key("x" * 300 + "b")


@given(texts, st.integers(1, 100))
def test_a_cut_text_begins_as_the_text_does_and_fits(text: str, length: int):
    short = payloads.cut(text, length)
    assert len(short) <= length
    assert short == text or text.startswith(short[:-1])


@given(configs)
def test_every_leaf_of_a_configuration_is_text(config: dict[str, Any]):
    assert all(isinstance(value, str) for value in payloads.flatten(config).values())


def test_other_searched_values_are_parameters():
    hyperparameters = {"model.hidden": [64, 64], "optimizer.momentum": 0.9, "model.activation": "relu"}
    told = {"model.hidden": "[64, 64]", "optimizer.momentum": "0.9", "model.activation": "relu"}
    assert told.items() <= payloads.params_of(make_spec(hyperparameters=hyperparameters)).items()
    outcome = make_summary().arms["dropout"]
    winner = Confirmed(3, (make_result(spec=make_spec(hyperparameters=hyperparameters, configuration=3)),))
    best = payloads.chosen_params_of(replace(outcome, winner=winner))
    assert {f"chosen_{key}": value for key, value in told.items()}.items() <= best.items()


def test_a_configuration_is_flattened_under_dotted_names():
    config = {"model": {"name": "mlp", "hidden": [128, 64], "options": {}}, "seed": 0, "root": None}
    assert payloads.flatten(config) == {
        "model.name": "mlp",
        "model.hidden": "[128, 64]",
        "model.options": "{}",
        "seed": "0",
        "root": "null",
    }


def test_a_trials_parameters_hold_each_rate_by_its_site():
    assert payloads.params_of(make_spec()) == {
        "rate.input.dropout": "0.1",
        "rate.hidden1.dropout:2": "0.5",
        "lr": "0.001",
        "weight_decay": "0.0001",
        "seed": "103",
        "number": "3",
    }


def test_a_confirmation_names_the_trial_that_it_retrains():
    assert payloads.params_of(make_spec(12, phase="confirm", configuration=3))["configuration"] == "3"


def test_accuracies_without_a_measurement_are_left_out():
    points = payloads.points_of(EpochMetrics(2, 1.0, 2.0, math.nan))
    assert [name for name, _, _ in points] == ["dropsearch/train_loss", "dropsearch/train_loss_as_trained", "val_loss"]
    assert {step for _, _, step in points} == {2}


def test_a_train_loss_that_an_epoch_does_not_measure_is_left_out():
    points = payloads.points_of(EpochMetrics(2, math.nan, 2.0, 1.0))
    assert [name for name, _, _ in points] == ["dropsearch/train_loss_as_trained", "val_loss"]


def test_the_best_values_are_those_of_the_epoch_with_the_least_validation_loss():
    totals = {name: (value, step) for name, value, step in payloads.totals_of(make_result())}
    best = make_curve()[2]
    assert totals["dropsearch/val_loss_best"] == (best.val_loss, 2)
    assert totals["dropsearch/val_acc_best"] == (best.val_acc, 2)
    assert totals["dropsearch/epochs"] == (4.0, 0)


def test_a_trial_that_diverged_has_no_best_values():
    diverged = make_result(curve=(EpochMetrics(0, math.inf, math.inf, math.nan),))
    assert {name for name, _, _ in payloads.totals_of(diverged)} == {"dropsearch/epochs", "dropsearch/seconds"}


def test_an_arms_configuration_is_its_confirmed_winners():
    params = payloads.chosen_params_of(make_summary().arms["dropout"])
    assert params["chosen_rate.hidden1.dropout:2"] == "0.5"
    assert params["chosen_trial"] == "dropout/3"


def test_an_arm_without_trials_has_no_configuration():
    assert payloads.chosen_params_of(make_summary().arms["none"]) == {}


def test_the_table_has_one_row_an_arm():
    table = payloads.table_of(make_summary())
    assert {len(column) for column in table.values()} == {2}
    assert table["arm"] == ["none", "dropout"]
    assert table["test_acc"] == [None, pytest.approx(0.85)]
    assert table["rate.input.dropout"] == [None, 0.1]


def test_the_note_shows_the_table_of_arms_and_the_rates():
    note = payloads.note_of(make_summary())
    assert "| arm | trials | val_loss_best |" in note
    assert "| arm | rate.input.dropout | rate.hidden1.dropout#2 |" in note
    assert "interrupted" not in note


def test_the_note_begins_with_the_answer():
    title, first, second, *_ = payloads.note_of(make_summary(answer=("Use x_1.", "No arm is worse."))).split("\n\n")
    assert (title[:2], first, second) == ("**", "Use x_1.", "No arm is worse.")


def test_the_note_says_that_a_run_was_interrupted():
    assert "interrupted" in payloads.note_of(make_summary(complete=False))


HOSTILE = "<script>a</script>\x1b[31m\u202e|`x`\n# [a](b)"


def test_the_note_has_no_markup_of_a_name():
    summary = make_summary(study=HOSTILE, model=HOSTILE, data=HOSTILE)
    note = payloads.note_of(summary)
    assert "\\<script\\>a\\</script\\>\\\\x1b[31m".replace("[", "\\[") in note
    assert "\x1b" not in note
    assert "\u202e" not in note
    assert note.splitlines()[0].startswith("**\\<script")


def test_parameters_have_no_control_characters():
    assert payloads.flatten({"model": {"name": HOSTILE}})["model.name"] == HOSTILE.replace("\x1b", "\\x1b").replace(
        "\u202e", "\\u202e"
    )
