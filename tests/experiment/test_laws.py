"""What a whole run must hold: the same chance for every arm, the test set once, and a record that agrees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from dropsearch.config.schema import Config
from dropsearch.core.records import TrialResult
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.experiment.tasks import run
from dropsearch.models import Classifier
from dropsearch.study.store import StudyStore
from tests.experiment.conftest import MEASURED, composed

ARMS = ("none", "dropout", "batchnorm", "both")


@dataclass
class Run:
    """What one run of the study did, in its order, and what it wrote."""

    config: Config
    events: list[tuple[str, Any]]
    results: dict[str, Any]
    out: Path

    def of(self, kind: str) -> list[Any]:
        return [what for name, what in self.events if name == kind]

    @property
    def told(self) -> list[TrialResult]:
        return self.of("told")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """The same study run twice: the second finds it finished."""
    out = tmp_path_factory.mktemp("laws") / "out"
    config = composed(*MEASURED, f"output_dir={out}")
    events: list[tuple[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        _record(patch, events)
        done = [_run(config, out, events) for _ in range(2)]
    return done[0], done[1]


def _record(patch: pytest.MonkeyPatch, events: list[tuple[str, Any]]) -> None:
    tell, note, opened = StudyStore.tell, StudyStore.note, TensorDataModule.test_dataloader

    def told(self: StudyStore, results: Sequence[TrialResult]) -> None:
        events.extend(("told", result) for result in results)
        tell(self, results)

    def noted(self: StudyStore, name: str, value: Any) -> None:
        events.append(("noted", (self.arm, value)))
        note(self, name, value)

    def test_dataloader(self: TensorDataModule) -> Any:
        events.append(("test", None))
        return opened(self)

    patch.setattr(StudyStore, "tell", told)
    patch.setattr(StudyStore, "note", noted)
    patch.setattr(TensorDataModule, "test_dataloader", test_dataloader)


def _run(config: Config, out: Path, events: list[tuple[str, Any]]) -> Run:
    events.clear()
    assert run(config) == 0
    return Run(config, list(events), json.loads((out / "results.json").read_text()), out)


@pytest.fixture
def first(runs: tuple[Run, Run]) -> Run:
    return runs[0]


@pytest.fixture
def second(runs: tuple[Run, Run]) -> Run:
    return runs[1]


def test_the_test_set_is_opened_after_every_selection(first: Run):
    kinds = [name for name, _ in first.events]
    assert "test" not in kinds[: len(kinds) - 1 - kinds[::-1].index("told")]
    scored = kinds[: len(kinds) - kinds[::-1].index("noted")]
    assert scored.count("test") == len(ARMS) * first.config.confirm.seeds, "by each model of the four winners, once"


def test_what_is_measured_on_the_test_set_is_measured_after_the_opening_and_changes_nothing(first: Run):
    kinds = [name for name, _ in first.events]
    after = kinds[len(kinds) - kinds[::-1].index("noted") :]
    assert after == ["test"], "read once, for all measures: nothing is trained, told or noted any more"


def test_the_opening_is_recorded_for_each_arm(first: Run):
    assert [arm for arm, _ in first.of("noted")] == list(ARMS)
    for arm, scores in first.of("noted"):
        winner = first.results["arms"][arm]["winner"]
        assert winner["opened_at"] == scores["opened_at"]
        assert winner["test_acc"] == list(scores["acc"])


def test_a_finished_study_opens_the_test_set_no_more_and_trains_nothing(first: Run, second: Run):
    assert second.of("told") == second.of("noted") == []
    assert second.of("test") == [None], "read for the measures of the report, and scored no more"
    changing = ("seconds", "trained_before", "versions", "commands")
    same = [{k: v for k, v in run.results.items() if k not in changing} for run in (first, second)]
    measured = [{k: v for k, v in found.pop("evidence").items() if k != "seconds"} for found in same]
    assert same[0] == same[1]
    assert measured[0] == measured[1]


def test_every_arm_has_the_same_number_of_trials_and_epochs(first: Run):
    study, trainer = first.config.study, first.config.trainer
    for arm in ARMS:
        trials = first.results["arms"][arm]["trials"]
        assert len(trials) == study.n_trials
        assert {trial["epochs"] for trial in trials if trial["state"] == "COMPLETE"} == {trainer.max_epochs}


def test_every_arm_has_the_same_seeds_in_the_same_order(first: Run):
    search = {arm: [trial["seed"] for trial in first.results["arms"][arm]["trials"]] for arm in ARMS}
    assert len({tuple(seeds) for seeds in search.values()}) == 1
    confirm = {tuple(c["seeds"]) for arm in ARMS for c in first.results["arms"][arm]["confirmed"]}
    assert len(confirm) == 1
    assert not set(search["none"]) & set(next(iter(confirm)))
    assert all(first.results["arms"][arm]["winner"]["seeds"] == list(next(iter(confirm))) for arm in ARMS)


def test_every_arm_tunes_the_optimiser_over_the_same_ranges(first: Run):
    ranges = {
        tuple((name, trial.distributions[name]) for name in ("lr", "weight_decay"))
        for arm in ARMS
        for trial in _study(first, arm).trials
    }
    assert len(ranges) == 1


def test_every_arm_begins_at_the_same_optimiser_settings(first: Run):
    begun = [first.results["arms"][arm]["trials"][0] for arm in ARMS]
    assert len({(trial["lr"], trial["weight_decay"]) for trial in begun}) == 1


def test_both_losses_of_the_curve_are_those_of_the_weights_with_dropout_off(first: Run):
    source = TensorDataModule("digits", seed=0, batch_size=30, train_size=90, val_fraction=0.25)
    kept = [r for r in first.told if r.checkpoint and r.best and any(r.spec.rates.values())]
    assert kept, "a confirmation whose network drops"
    for result in kept:
        module = Classifier.load_from_checkpoint(result.checkpoint, map_location="cpu").eval()
        assert result.best
        split = source.for_trial(result.spec)
        for loader, loss in (
            (split.train_part_loader(), result.best.train_loss),
            (split.val_dataloader(), result.best.val_loss),
        ):
            (x, y), *rest = list(loader)
            assert not rest
            with torch.no_grad():
                by_hand = torch.nn.functional.cross_entropy(module(x), y).item()
            assert loss == pytest.approx(by_hand, rel=1e-5)


def test_the_loss_as_trained_is_another_number(first: Run):
    dropping = [r for r in first.told if any(r.spec.rates.values())]
    assert all(p.train_loss != p.train_loss_as_trained for r in dropping for p in r.curve)


KEYS = {"study", "model", "data", "seed", "versions", "seconds", "engine", "arms", "comparisons", "tracking"}
ARM_KEYS = {"states", "trials", "best", "confirmed", "winner"}
TRIAL_KEYS = {"number", "state", "params", "rates", "seed", "val_loss", "val_acc", "epochs", "seconds"}
WINNER_KEYS = {"number", "rates", "test_loss", "test_acc", "mean_test_acc", "ci95_test_acc"}
COMPARISON_KEYS = {"a", "b", "metric", "difference", "ci95", "p", "p_holm"}


def test_results_hold_every_key_that_scripts_rely_on(first: Run):
    assert set(first.results) >= KEYS
    for arm in first.results["arms"].values():
        assert set(arm) >= ARM_KEYS
        assert set(arm["states"]) == {"COMPLETE", "PRUNED", "FAIL"}
        assert all(set(trial) >= TRIAL_KEYS for trial in arm["trials"])
        assert set(arm["best"]) >= {"number", "params", "rates", "val_loss", "val_acc"}
        assert all(set(c) >= {"number", "seeds", "val_loss", "val_acc"} for c in arm["confirmed"])
        assert set(arm["winner"]) >= WINNER_KEYS
    assert first.results["comparisons"]
    assert all(set(comparison) >= COMPARISON_KEYS for comparison in first.results["comparisons"])


def test_results_agree_with_the_study(first: Run):
    for arm in ARMS:
        told = _study(first, arm).trials
        written = first.results["arms"][arm]["trials"]
        assert [(t.number, t.state.name, t.params, t.value) for t in told] == [
            (t["number"], t["state"], t["params"], t["val_loss"]) for t in written
        ]


def test_the_winner_has_the_least_confirmed_loss_of_all_that_its_arm_contains(first: Run):
    for name, arm in first.results["arms"].items():
        on_all_seeds = {
            (owner, c["number"]): sum(c["val_loss"]) / len(c["val_loss"])
            for owner in ARMS
            for c in first.results["arms"][owner]["confirmed"]
            if len(c["seeds"]) == first.config.confirm.seeds and _contains(first, name, owner, c["number"])
        }
        winner = arm["winner"]
        assert (winner["arm"], winner["number"]) == min(on_all_seeds, key=lambda key: on_all_seeds[key])
        assert winner["mean_val_loss"] == pytest.approx(min(on_all_seeds.values()))


def test_the_scores_of_a_winner_are_its_own(first: Run):
    for arm in first.results["arms"].values():
        accuracies = arm["winner"]["test_acc"]
        assert arm["winner"]["mean_test_acc"] == pytest.approx(sum(accuracies) / len(accuracies))


def _contains(run: Run, arm: str, owner: str, number: int) -> bool:
    """Return whether an arm contains a configuration of another one, as it does where that drops nothing."""
    drops = any(run.results["arms"][owner]["trials"][number]["rates"].values())
    has_dropout, has_batchnorm = arm in ("dropout", "both"), arm in ("batchnorm", "both")
    return owner == arm or ((owner in ("batchnorm", "both")) == has_batchnorm and (has_dropout or not drops))


def _study(run: Run, arm: str) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(run.out / "study.journal")))
    return optuna.load_study(study_name=f"{run.config.study.name}/{arm}", storage=storage)
