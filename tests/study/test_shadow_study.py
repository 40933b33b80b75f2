"""Samplers and pruners decide the same on the in-memory copy as on the study itself."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.pruners import MedianPruner
from optuna.samplers import PartialFixedSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.study import shadow_study
from dropsearch.study.algorithms import make_pruner, make_sampler
from dropsearch.study.search_feed import SearchFeed
from dropsearch.study.shadow_study import Shadow
from dropsearch.study.storage import open_storage
from dropsearch.study.store import StudyStore
from dropsearch.study.studies import quiet_optuna
from tests.study.conftest import make_feed

EPOCHS = 9


def loss(params: dict[str, float], epoch: int) -> float:
    return abs(math.log(params["lr"] / 3e-3)) + (params["rate.a"] - 0.3) ** 2 + 1 / (1 + epoch * params["rate.b"] ** 2)


def ledger_of(folder: Path, sampler: str, pruner: str) -> StudyStore:
    return StudyStore(
        open_storage(None, folder / "study.journal"),
        "s/dropout",
        arm="dropout",
        phase="search",
        fingerprint={},
        make_sampler=partial(make_sampler, sampler, n_startup_trials=5),
        pruner=make_pruner(pruner, EPOCHS, 2, 1),
    )


def ours(feed: SearchFeed, batch: int) -> list[tuple[dict[str, float], int]]:
    """The parameters and the number of epochs of each trial, by number; a batch of them is open at a time."""
    found: dict[int, tuple[dict[str, float], int]] = {}
    while specs := feed.ask(batch):
        running = {spec.number: (spec, list[EpochMetrics]()) for spec in specs}
        for epoch in range(EPOCHS):
            reports: list[tuple[TrialSpec, EpochMetrics]] = []
            for spec, curve in running.values():
                value = loss(dict(spec.params), epoch)
                curve.append(EpochMetrics(epoch, value, value, value))
                reports.append((spec, curve[-1]))
            for (spec, _), prune in zip(reports, feed.report(reports), strict=True):
                if prune or epoch == EPOCHS - 1:
                    state = "COMPLETE" if epoch == EPOCHS - 1 else "PRUNED"
                    curve = running.pop(spec.number)[1]
                    found[spec.number] = dict(spec.params), len(curve)
                    feed.tell([TrialResult(spec, state, tuple(curve), 0.0)])
    return [found[number] for number in sorted(found)]


def optunas(feed: SearchFeed, sampler: str, pruner: str, total: int, batch: int) -> list[tuple[dict[str, float], int]]:
    """The same search by Optuna's own ask, report, should_prune and tell."""
    with quiet_optuna():
        median = MedianPruner(n_startup_trials=2, n_warmup_steps=1)
        study = optuna.create_study(
            study_name="s/dropout", pruner=median if pruner == "median" else make_pruner(pruner, EPOCHS)
        )
        found: dict[int, tuple[dict[str, float], int]] = {}
        for first in range(0, total, batch):
            running: dict[int, Trial] = {}
            for trial_key in range(first, min(first + batch, total)):
                base = make_sampler(sampler, feed.sampler_seed((trial_key,)), n_startup_trials=5)
                points = feed.space.first_points
                study.sampler = PartialFixedSampler(points[trial_key], base) if trial_key < len(points) else base
                trial = study.ask(feed.distributions)
                running[trial.number] = trial
            for epoch in range(EPOCHS):
                for number, trial in list(running.items()):
                    value = loss(trial.params, epoch)
                    trial.report(value, epoch)
                    prune = trial.should_prune()
                    if epoch == EPOCHS - 1:
                        study.tell(trial, min(trial._cached_frozen_trial.intermediate_values.values()))
                    elif prune:
                        study.tell(trial, state=TrialState.PRUNED)
                    if prune or epoch == EPOCHS - 1:
                        del running[number]
                        found[number] = trial.params, epoch + 1
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("random", "none"),
        ("random", "median"),
        ("random", "hyperband"),
        ("tpe", "none"),
        ("tpe", "median"),
        pytest.param("gp", "none", marks=pytest.mark.slow),
    ],
)
def test_proposals_and_pruning_equal_optuna(tmp_path: Path, sampler: str, pruner: str, batch: int) -> None:
    total = 8 if sampler == "gp" else 24
    feed = make_feed(ledger_of(tmp_path, sampler, pruner), total=total)
    expected = optunas(feed, sampler, pruner, total, batch)
    got = ours(feed, batch)
    assert [epochs for _, epochs in got] == [epochs for _, epochs in expected]
    for (params, _), (theirs, _) in zip(got, expected, strict=True):
        assert params == pytest.approx(theirs, rel=1e-6)


def test_hyperband_continues_across_processes(tmp_path: Path) -> None:
    ours(make_feed(ledger_of(tmp_path, "random", "hyperband"), total=10), 1)
    rungs = [trial.system_attrs for trial in ledger_of(tmp_path, "random", "hyperband").study.trials]
    assert any("completed_rung_0" in attrs for attrs in rungs)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_same_seed_gives_the_same_trials(tmp_path_factory: pytest.TempPathFactory, sampler: str) -> None:
    runs = [
        ours(make_feed(ledger_of(tmp_path_factory.mktemp("run"), sampler, "median"), total=20), 4) for _ in range(2)
    ]
    assert runs[0] == runs[1]


def trial(number: int, state: TrialState, value: float | None = None) -> FrozenTrial:
    made = create_trial(state=state, value=value)
    made.number = made._trial_id = number
    return made


def test_trials_are_sorted_by_number() -> None:
    seen = Shadow("s")
    for number in (4, 0, 2, 3, 1):
        seen.put(trial(number, TrialState.RUNNING))
    seen.put(trial(3, TrialState.COMPLETE, 1.0))
    seen.put(trial(1, TrialState.PRUNED))
    seen.discard(2)
    assert [t.number for t in seen.of(*TrialState)] == [0, 1, 3, 4]
    assert [t.number for t in seen.of(TrialState.RUNNING)] == [0, 4]
    assert seen.next_number == 5
    assert 2 not in seen


def test_sampler_sees_newest_and_best_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_study, "SEEN", 4)
    monkeypatch.setattr(shadow_study, "BEST", 2)
    seen = Shadow("s")
    for number in range(10):
        seen.put(trial(number, TrialState.COMPLETE, abs(number - 2.2)))
    seen.put(trial(10, TrialState.RUNNING))
    study = seen.study(make_sampler("random", 0))
    assert [t.number for t in study.get_trials(deepcopy=False)] == [2, 3, 6, 7, 8, 9, 10]
    for number in (11, 12):
        seen.put(trial(number, TrialState.PRUNED))
    assert [t.number for t in study.get_trials(deepcopy=False)] == [2, 3, 8, 9, 10, 11, 12]
    assert len(seen.study().trials) == 13
