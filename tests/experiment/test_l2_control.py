"""`evidence.l2_control=true`: does co-adaptation fall by dropout, or by whatever keeps from fitting the data?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dropsearch.core.errors import InputError
from dropsearch.core.records import Confirmed, EpochMetrics, L2Control, TrialResult, TrialSpec
from dropsearch.experiment.l2_control import COMPARED, nearest
from dropsearch.experiment.runner import searched
from dropsearch.experiment.tasks.evidence import measured_finished_run
from dropsearch.report.tables.evidence import l2_control_table
from dropsearch.study.retrainings import l2_controls
from tests.experiment import conftest
from tests.experiment.conftest import LIGHT, Cli, composed, every_first_point_drops
from tests.experiment.study_audit import studies

QUICK = ("evidence.monte_carlo=[1]", "evidence.severities=1")
GIVEN = (*LIGHT, "arms=[none,dropout]", "confirm.top_k=1", *QUICK, "evidence.l2_control=true")


class Done(conftest.Done):
    @property
    def control(self) -> L2Control:
        assert self.summary.evidence
        return self.summary.evidence.l2_controls["dropout"]

    @property
    def winner(self) -> Confirmed:
        winner = self.summary.arms["dropout"].winner
        assert winner
        return winner

    @property
    def controls(self) -> list[TrialResult]:
        return [result for result in self.trained if result.spec.phase == "l2"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    with every_first_point_drops():
        yield Done.of(composed(*GIVEN, f"output_dir={tmp_path_factory.mktemp('l2') / 'out'}"))


def test_each_weight_decay_is_trained_without_dropout_on_each_of_the_winners_seeds(done: Done):
    wanted = l2_controls(done.winner.results[0].spec)
    found = [(r.spec.weight_decay, r.spec.seed) for r in done.controls]
    assert sorted(found) == sorted((spec.weight_decay, seed) for spec in wanted.values() for seed in done.winner.seeds)
    for result in done.controls:
        assert set(result.spec.rates.values()) == {0.0}
        assert result.spec.lr == done.winner.results[0].spec.lr


def test_the_control_is_the_one_whose_mean_train_loss_is_nearest_to_the_winners(done: Done):
    def mean(results) -> float:
        losses = [result.best.train_loss for result in results]
        return sum(losses) / len(losses)

    decays = {result.spec.weight_decay for result in done.controls}
    losses = {decay: mean([r for r in done.controls if r.spec.weight_decay == decay]) for decay in decays}
    wanted = mean(done.winner.results)
    assert dict(done.control.train_losses) == pytest.approx(losses)
    assert done.control.weight_decay == min(losses, key=lambda decay: abs(losses[decay] - wanted))


def test_what_is_measured_on_it_is_of_the_models_that_were_kept(done: Done):
    told = {r.spec.seed: r for r in done.controls if r.spec.weight_decay == done.control.weight_decay}
    results = [told[seed] for seed in done.winner.seeds]
    gaps = [r.best.val_loss - r.best.train_loss for r in results if r.best]
    assert list(done.control.measures["gap_best"]) == pytest.approx(gaps)
    assert set(done.control.measures) == {"train_loss", *COMPARED}
    weights = [torch.load(r.checkpoint, weights_only=False)["state_dict"] for r in results]
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_differences_are_the_winner_minus_the_control_on_the_same_seed(done: Done):
    assert done.summary.evidence
    own = done.summary.evidence.arms["dropout"].measures
    found = {contrast.metric: contrast for contrast in done.control.contrasts}
    assert set(found) == {"train_loss", *COMPARED}
    for name in COMPARED:
        pairs = zip(own[name], done.control.measures[name], strict=True)
        assert found[name].differences == tuple(a - b for a, b in pairs)


def test_an_arm_without_dropout_has_none(done: Done):
    assert done.summary.evidence
    assert list(done.summary.evidence.l2_controls) == ["dropout"]
    named = {name.removeprefix("mlp-digits/") for name in studies(str(done.out / "study.journal"))}
    assert named == {"none", "none/confirm", "dropout", "dropout/confirm", "dropout/evidence/l2_control"}


def test_it_is_told_in_the_report_and_in_the_results(done: Done):
    table = l2_control_table(done.summary)
    assert len(table.rows) == 1 + len(COMPARED)
    assert table.title in (done.out / "report.md").read_text()
    assert "mean |correlation| between hidden units" in [row[0] for row in table.rows]
    assert "Winners minus controls" in (done.out / "report.html").read_text()
    told = json.loads((done.out / "results.json").read_text())["evidence"]["l2_controls"]["dropout"]
    assert told["weight_decay"] == done.control.weight_decay
    assert [tuple(pair) for pair in told["train_losses"]] == list(done.control.train_losses)


def test_given_again_nothing_is_trained_and_the_same_is_told(done: Done):
    again = Done.of(done.config)
    assert again.trained == ()
    assert again.control == done.control


def test_a_control_whose_weights_are_gone_is_trained_again(done: Done):
    gone = done.controls[0]
    Path(gone.checkpoint).unlink()
    config = dataclasses.replace(done.config, task="evidence")
    with pytest.raises(InputError, match="needs the checkpoints of the run"):
        measured_finished_run(config)
    again = Done.of(done.config)
    assert [result.spec.variation for result in again.trained] == [gone.spec.variation]
    assert again.control == done.control


def test_an_earlier_run_is_measured_with_it(done: Done):
    evidence = measured_finished_run(dataclasses.replace(done.config, task="evidence")).evidence
    assert evidence
    assert evidence.l2_controls["dropout"] == done.control


def test_a_winner_that_drops_nothing_has_none_and_that_is_said(tmp_path: Path):
    given = (*GIVEN, "arms=[dropout]", f"output_dir={tmp_path / 'out'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dropsearch.study.search_space.Space.first_points", property(_resting))
        evidence = searched(composed(*given)).evidence
    assert evidence
    assert evidence.l2_controls == {}
    assert "arm dropout has no L2 control, for its winner drops nothing anywhere" in evidence.notes


def _resting(space) -> tuple[dict[str, float], ...]:
    rates = {name: 0.0 for name in space.distributions if name.startswith("rate.")}
    return tuple({"lr": 1e-2, "weight_decay": 1e-4, **rates} for _ in range(3))


def _retrained(decay: float, *losses: float) -> Confirmed:
    spec = TrialSpec("dropout", 0, 0, {}, lr=1e-2, weight_decay=decay, phase="l2")
    results = tuple(
        TrialResult(
            dataclasses.replace(spec, seed=seed), "COMPLETE", (EpochMetrics(0, loss, loss, 1.0, 0.5, 0.5),), 1.0
        )
        for seed, loss in enumerate(losses)
    )
    return Confirmed(0, results)


def test_a_weight_decay_that_failed_on_a_seed_is_no_control():
    winner = _retrained(0.0, 0.5, 0.5)
    tried = [_retrained(0.1, 0.5, float("nan")), _retrained(0.2, 0.5), _retrained(0.3, 0.9, 0.9)]
    assert nearest(tried, winner) is tried[2]
    assert nearest(tried[:2], winner) is None


def test_a_module_without_weight_decay_has_none_to_be_controlled_by(cli: Cli, folder: Path):
    (folder / "steadfast.py").write_text(
        "import torch\nfrom user_module import Digits, LitNet\n\n\nclass Net(LitNet):\n"
        "    def configure_optimizers(self):\n"
        "        return torch.optim.Rprop(self.parameters(), lr=self.hparams['lr'])\n"
    )
    own = ("model._target_=steadfast.Net", "data._target_=steadfast.Digits", "tracking=none", "engine=sequential")
    ended = cli(*own, "evidence.l2_control=true", "output_dir=out")
    assert ended.status == 2
    assert "needs a module whose weight decay can be set, got model=Net" in ended.err
    assert ended.left == []
