"""`evidence.train_sizes=[...]`: how far each arm's winner overfits on parts of the training set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from dropsearch.core.records import TrainSize, TrialResult
from dropsearch.experiment.tasks.evidence import measured_finished_run
from dropsearch.report.tables.train_sizes import size_contrasts_table, sizes_table
from tests.experiment import conftest
from tests.experiment.conftest import LIGHT, Cli, composed
from tests.experiment.study_audit import studies

QUICK = ("evidence.monte_carlo=[1]", "evidence.severities=1")
GIVEN = (*LIGHT, "arms=[none,dropout]", "confirm.top_k=1", *QUICK, "evidence.train_sizes=[20,90]")


class Done(conftest.Done):
    @property
    def sizes(self) -> tuple[TrainSize, ...]:
        assert self.summary.evidence
        return self.summary.evidence.train_sizes

    @property
    def retrained(self) -> list[TrialResult]:
        return [result for result in self.trained if result.spec.phase == "sizes"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done.of(composed(*GIVEN, f"output_dir={tmp_path_factory.mktemp('sizes') / 'out'}"))


def test_each_winner_is_trained_once_on_each_size_and_seed(done: Done):
    found = sorted((r.spec.arm, r.spec.variation, r.spec.seed) for r in done.retrained)
    wanted = [
        (arm, f"train_size = {size}", seed)
        for arm, outcome in done.summary.arms.items()
        for size in (20, 90)
        for seed in (outcome.winner.seeds if outcome.winner else ())
    ]
    assert found == sorted(wanted)
    assert len(found) == 8


def test_on_the_whole_training_set_a_winner_is_the_winner_again(done: Done):
    whole = done.sizes[-1]
    for arm, outcome in done.summary.arms.items():
        assert outcome.winner
        assert whole.val_losses[arm] == outcome.winner.val_loss
        assert done.summary.evidence
        assert whole.gaps[arm] == done.summary.evidence.arms[arm].measures["gap_best"]


def test_on_a_part_of_it_the_gap_is_that_of_its_best_epoch(done: Done):
    part = done.sizes[0]
    for arm, outcome in done.summary.arms.items():
        told = {r.spec.seed: r for r in done.retrained if r.spec.arm == arm and r.spec.variation == "train_size = 20"}
        best = [told[seed].best for seed in (outcome.winner.seeds if outcome.winner else ())]
        assert part.gaps[arm] == tuple(point.val_loss - point.train_loss for point in best if point)
        assert part.val_losses[arm] != done.sizes[1].val_losses[arm]


def test_dropout_is_compared_with_none_at_each_size(done: Done):
    for size in done.sizes:
        assert [(c.a, c.b, c.metric) for c in size.contrasts] == [
            ("dropout", "none", "gap_best"),
            ("dropout", "none", "val_loss"),
        ]
        pairs = zip(size.gaps["dropout"], size.gaps["none"], strict=True)
        assert size.contrasts[0].differences == tuple(a - b for a, b in pairs)


def test_all_sizes_of_an_arm_share_a_study(done: Done):
    named = {name.removeprefix("mlp-digits/") for name in studies(f"{done.config.output_dir}/study.journal")}
    parts = ("", "/confirm", "/evidence/train_sizes")
    assert named == {f"{arm}{part}" for arm in ("none", "dropout") for part in parts}


def test_they_are_told_in_the_report_and_in_the_results(done: Done):
    out = done.out
    assert [row[:2] for row in sizes_table(done.summary).rows] == [
        (size, arm) for size in ("20", "90") for arm in ("none", "dropout")
    ]
    for table in (sizes_table(done.summary), size_contrasts_table(done.summary)):
        assert table.title in (out / "report.md").read_text()
        assert table.title in (out / "report.html").read_text()
    assert (out / "figures" / "train_sizes.png").exists()
    told = json.loads((out / "results.json").read_text())["evidence"]["train_sizes"]
    assert [tuple(size["gaps"]["dropout"]) for size in told] == [size.gaps["dropout"] for size in done.sizes]


def test_given_again_with_one_more_size_only_that_is_trained(done: Done):
    evidence = dataclasses.replace(done.config.evidence, train_sizes=[20, 40, 90])
    again = Done.of(dataclasses.replace(done.config, evidence=evidence))
    assert {result.spec.variation for result in again.trained} == {"train_size = 40"}
    assert [size.gaps for size in (again.sizes[0], again.sizes[2])] == [size.gaps for size in done.sizes]


def test_an_earlier_run_is_measured_with_them(done: Done):
    evidence = measured_finished_run(dataclasses.replace(done.config, task="evidence")).evidence
    assert evidence
    assert [(size.size, size.gaps) for size in evidence.train_sizes] == [(s.size, s.gaps) for s in done.sizes]


def test_processes_and_arrays_train_on_parts_as_one_trial_alone_does(done: Done, tmp_path: Path):
    config = composed(
        *GIVEN, "engine=vectorized", "engine.width=2", "engine.processes=2", f"output_dir={tmp_path / 'out'}"
    )
    for size, other in zip(Done.of(config).sizes, done.sizes, strict=True):
        assert size.val_losses == {arm: pytest.approx(losses, rel=1e-3) for arm, losses in other.val_losses.items()}


def test_a_size_beyond_the_training_set_is_refused_before_anything_is_trained(cli: Cli):
    ended = cli(*GIVEN[:-1], "evidence.train_sizes=[20,91]")
    assert (ended.status, ended.left) == (2, [])
    assert "evidence.train_sizes must be at most the 90 training examples, got 91" in ended.err


def test_data_of_ones_own_is_not_taken_apart(cli: Cli, folder: Path):
    own = ("model._target_=user_module.LitNet", "data._target_=user_module.Digits", "tracking=none")
    ended = cli(*own, "evidence.train_sizes=[20]")
    assert (ended.status, ended.left) == (2, [])
    assert "evidence.train_sizes must be [] with data of one's own" in ended.err
