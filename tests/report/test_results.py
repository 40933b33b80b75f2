from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.report.markdown import markdown
from dropsearch.report.results import results, write_results
from dropsearch.report.tables.evidence import contrasts_table

KEYS = {"study", "model", "data", "seed", "versions", "seconds", "engine", "arms", "comparisons", "tracking"}
TRIAL_KEYS = {"number", "state", "params", "rates", "seed", "val_loss", "val_acc", "epochs", "seconds"}
WINNER_KEYS = {"number", "rates", "test_loss", "test_acc", "mean_test_acc", "ci95_test_acc"}


def test_every_key_that_programs_rely_on_is_there(summary):
    found = results(summary)
    assert found.keys() >= KEYS
    for arm in found["arms"].values():
        assert arm.keys() >= {"states", "trials", "best", "confirmed", "winner"}
        assert arm["states"].keys() == {"COMPLETE", "PRUNED", "FAIL"}
        assert all(trial.keys() >= TRIAL_KEYS for trial in arm["trials"])
        assert arm["best"].keys() >= {"number", "params", "rates", "val_loss", "val_acc"}
        assert all(c.keys() >= {"number", "seeds", "val_loss", "val_acc"} for c in arm["confirmed"])
        assert arm["winner"].keys() >= WINNER_KEYS
    for comparison in found["comparisons"]:
        assert comparison.keys() >= {"a", "b", "metric", "difference", "ci95", "effect", "p", "p_holm"}
    assert found["tracking"].keys() == {"tracking_uri", "experiment", "run_id"}


def test_states_count_every_trial_once(summary):
    for arm in results(summary)["arms"].values():
        assert arm["states"] == {"COMPLETE": 10, "PRUNED": 2, "FAIL": 0}
        assert len(arm["trials"]) == 12


def test_the_best_is_the_complete_trial_with_the_least_validation_loss(summary):
    for arm in results(summary)["arms"].values():
        complete = [trial["val_loss"] for trial in arm["trials"] if trial["state"] == "COMPLETE"]
        assert arm["best"]["val_loss"] == min(complete)


def test_the_gap_is_confirmed_minus_search_loss_of_the_same_configuration(summary):
    for arm in results(summary)["arms"].values():
        searched = next(t["val_loss"] for t in arm["trials"] if t["number"] == arm["winner"]["number"])
        confirmed = next(c for c in arm["confirmed"] if c["number"] == arm["winner"]["number"])
        assert arm["gap"]["difference"] == pytest.approx(np.mean(confirmed["val_loss"]) - searched)


def test_the_mean_and_interval_are_those_of_the_seeds(summary):
    winner = results(summary)["arms"]["both"]["winner"]
    low, high = winner["ci95_test_acc"]
    assert winner["mean_test_acc"] == pytest.approx(np.mean(winner["test_acc"]))
    assert low < winner["mean_test_acc"] < high


def test_numbers_that_are_not_finite_become_null(make):
    found = results(make.tested(none=[0.9, math.nan, 0.8], dropout=[math.inf] * 3))
    assert found["arms"]["none"]["winner"]["test_acc"] == [0.9, None, 0.8]
    assert found["arms"]["dropout"]["winner"]["mean_test_acc"] is None


def test_an_arm_without_a_winner_has_null_for_it(make):
    arm = results(make.summary({"none": make.failed("none")}))["arms"]["none"]
    assert (arm["best"], arm["winner"], arm["confirmed"]) == (None, None, [])
    assert arm["trials"][0]["reason"] == "CUDA out of memory"


def test_a_winner_that_has_not_seen_the_test_set_has_no_scores(make):
    winner = results(make.summary({"none": make.untested("none")}))["arms"]["none"]["winner"]
    assert (winner["opened_at"], winner["test_acc"], winner["ci95_test_acc"]) == (None, [], [None, None])


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.floats(width=32).map(np.float32)
    | st.integers(-9, 9).map(np.int64),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(config=st.dictionaries(st.text(), values))
def test_any_configuration_becomes_strict_json(make, config):
    text = json.dumps(results(make.summary({}, config=config)), allow_nan=False)
    assert set(json.loads(text)["config"]) == set(config)


def test_the_file_is_the_results_as_json(summary, tmp_path):
    path = write_results(summary, tmp_path / "run" / "results.json")
    assert json.loads(path.read_text(encoding="utf-8")) == results(summary)


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(summary, tmp_path, monkeypatch):
    path = write_results(summary, tmp_path / "results.json")
    before = path.read_bytes()

    def fails(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="no space"):
        write_results(replace(summary, seed=1), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_evidence_is_there_in_finite_numbers_or_null(make):
    found = results(make.with_evidence())["evidence"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    keys = {"arms", "contrasts", "claims", "responses", "budgets", "variations", "seconds", "notes", "quantities"}
    assert found.keys() == keys
    assert found["arms"]["none"]["measures"]["mc_nll"] == [None] * 10
    assert len(found["arms"]["dropout"]["series"]["knockout"]["values"]) == 10
    assert found["claims"][0]["number"] == {"mean": -0.07, "low": -0.09, "high": -0.05}
    assert found["contrasts"][0]["ci95"] == [-0.09, -0.05]
    assert found["responses"]["both"][0]["site"] == "input_dropout"


def test_only_differences_of_scores_are_called_shown(make):
    whole = make.with_evidence()
    found = results(whole)
    assert all("consistent_over_seeds" in each and "shown" not in each for each in found["evidence"]["contrasts"])
    assert contrasts_table(whole).columns[-1] == "consistent\nover seeds"
    text = markdown(whole)
    evidence = text[text.index("## Evidence") : text.index("## Caveats")]
    assert "shown" not in evidence
    assert "is called consistent over seeds, and never shown." in text


def test_without_evidence_there_is_null_for_it(summary):
    assert results(summary)["evidence"] is None


def test_a_path_of_no_encoding_can_be_written(make, tmp_path):
    path = write_results(make.summary({}, config={"output_dir": "caf\udce9"}), tmp_path / "results.json")
    assert json.loads(path.read_text(encoding="utf-8"))["config"]["output_dir"] == "caf\udce9"
