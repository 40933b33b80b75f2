"""Searches that are done again, of which nothing is chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.records import TrialResult
from dropsearch.experiment.tasks import run
from dropsearch.study.store import StudyStore
from tests.experiment import study_audit
from tests.experiment.conftest import MEASURED, composed, trials_told

ARMS = ["none", "dropout"]
SMALL = (*MEASURED, "arms=[none,dropout]", "sampler=random", "pruner=none", "study.n_trials=6")

Results = dict[str, Any]


def results(out: Path) -> Results:
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def once_then_twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results, Results, list[TrialResult]]:
    """A study, continued with one repetition: the folder, both results, and what the second run trained."""
    out = tmp_path_factory.mktemp("repeats") / "out"
    assert run(composed(*SMALL, f"output_dir={out}")) == 0
    before = results(out)
    with trials_told() as trained:
        assert run(composed(*SMALL, "study.repeats=2", f"output_dir={out}")) == 0
    return out, before, results(out), trained


Run = tuple[Path, Results, Results, list[TrialResult]]


def test_each_arm_is_searched_again_in_its_own_study(once_then_twice: Run):
    out, _, after, trained = once_then_twice
    study_audit.check_totals(str(out / "study.journal"), ARMS, 6, 2, 2, repeats=2)
    assert {result.spec.key for result in trained} == {f"{arm}/repeat-2/{n}" for arm in ARMS for n in range(6)}
    assert [len(after["arms"][arm]["repeats"]) for arm in ARMS] == [1, 1]


def test_nothing_is_chosen_among_repetitions(once_then_twice: Run):
    _, before, after, _ = once_then_twice
    for arm in ARMS:
        chosen = {key: after["arms"][arm][key] for key in ("trials", "confirmed", "winner", "best")}
        assert chosen == {key: before["arms"][arm][key] for key in chosen}


def test_repetitions_have_seeds_and_rates_of_their_own_and_arms_still_pair_up(once_then_twice: Run):
    after = once_then_twice[2]["arms"]
    seeds = {arm: [trial["seed"] for trial in after[arm]["repeats"][0]] for arm in ARMS}
    assert seeds["none"] == seeds["dropout"]
    assert not set(seeds["dropout"]) & {trial["seed"] for trial in after["dropout"]["trials"]}
    # The first two trials are the same points in every search.
    first, again = after["dropout"]["trials"], after["dropout"]["repeats"][0]
    assert [t["lr"] for t in first[:2]] == [t["lr"] for t in again[:2]]
    assert not {t["lr"] for t in first[2:]} & {t["lr"] for t in again[2:]}


def test_a_finished_study_trains_no_repetition_twice(once_then_twice: Run, monkeypatch: pytest.MonkeyPatch):
    out = once_then_twice[0]
    monkeypatch.setattr(StudyStore, "tell", lambda *_: pytest.fail("a trial was trained"))
    assert run(composed(*SMALL, "study.repeats=2", f"output_dir={out}")) == 0
