"""`evidence.single_sites=true`: which single sites of a winner matter."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dropsearch.core.errors import InputError
from dropsearch.core.records import Variation
from dropsearch.experiment.tasks.evidence import measured_finished_run
from dropsearch.experiment.tasks.search import searched
from dropsearch.report.tables.evidence import variation_tables
from dropsearch.study.retrainings import single_sites
from tests.experiment import conftest
from tests.experiment.conftest import LIGHT, MEASURED, composed, every_first_point_drops
from tests.experiment.study_audit import studies

GIVEN = (*MEASURED, "arms=[batchnorm,dropout]", "confirm.top_k=1", "evidence.single_sites=true")


class Done(conftest.Done):
    @property
    def varied(self) -> tuple[Variation, ...]:
        assert self.summary.evidence
        return self.summary.evidence.variations["single sites"]["dropout"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    with every_first_point_drops():
        yield Done.of(composed(*GIVEN, f"output_dir={tmp_path_factory.mktemp('sites') / 'out'}"))


def test_each_variation_of_the_winner_is_trained_once_on_each_of_its_seeds(done: Done):
    winner = done.summary.arms["dropout"].winner
    assert winner
    wanted = single_sites(winner.results[0].spec)
    found = [(r.spec.variation, r.spec.seed) for r in done.trained if r.spec.phase == "sites"]
    assert len(wanted) >= 2
    assert sorted(found) == sorted((name, seed) for name in wanted for seed in winner.seeds)
    for result in done.trained:
        if result.spec.phase == "sites":
            assert result.spec.rates == wanted[result.spec.variation].rates
            assert result.spec.lr == winner.results[0].spec.lr


def test_differences_are_those_to_the_winner_on_the_same_seed(done: Done):
    winner = done.summary.arms["dropout"].winner
    assert winner
    for variation in done.varied:
        told = {r.spec.seed: r for r in done.trained if r.spec.variation == variation.name}
        scores = tuple(told[seed].best.val_loss for seed in winner.seeds)  # type: ignore[union-attr]
        assert variation.scores == scores
        assert variation.comparison.differences == tuple(a - b for a, b in zip(scores, winner.val_loss, strict=True))


def test_an_arm_without_dropout_has_none(done: Done):
    assert done.summary.evidence
    assert {title: list(arms) for title, arms in done.summary.evidence.variations.items()} == {
        "single sites": ["dropout"]
    }
    named = {name.removeprefix("mlp-digits/") for name in studies(str(done.out / "study.journal"))}
    assert named == {"batchnorm", "batchnorm/confirm", "dropout", "dropout/confirm", "dropout/evidence/single_sites"}


def test_they_are_in_the_report_and_the_results(done: Done):
    (table,) = variation_tables(done.summary)
    assert [row[:2] for row in table.rows] == [(v.name, "dropout") for v in done.varied]
    assert table.title in (done.out / "report.md").read_text()
    assert "Single sites: " in (done.out / "report.html").read_text()
    told = json.loads((done.out / "results.json").read_text())["evidence"]["variations"]["single sites"]["dropout"]
    assert [tuple(v["scores"]) for v in told] == [v.scores for v in done.varied]
    assert [v["comparison"]["differences"] for v in told] == [list(v.comparison.differences) for v in done.varied]


def test_the_choice_of_the_winner_does_not_know_of_them(done: Done):
    kinds = [r.spec.phase for r in done.trained]
    assert kinds.index("sites") > max(i for i, kind in enumerate(kinds) if kind != "sites")


def test_repeated_it_trains_nothing_and_prints_the_same(done: Done):
    again = Done.of(done.config)
    assert again.trained == ()
    assert again.varied == done.varied


def test_an_earlier_run_is_measured_with_them(done: Done):
    config = dataclasses.replace(done.config, task="evidence")
    evidence = measured_finished_run(config).evidence
    assert evidence
    assert evidence.variations["single sites"]["dropout"] == done.varied


def test_an_earlier_run_without_them_is_not_trained_for_them(tmp_path: Path):
    out = f"output_dir={tmp_path / 'out'}"
    searched(composed(*LIGHT, "arms=[dropout]", "confirm.top_k=1", out))
    with pytest.raises(InputError, match="there is no study mlp-digits/dropout/evidence/single_sites in"):
        measured_finished_run(composed(*GIVEN, "arms=[dropout]", "task=evidence", out))
