"""What dropout did in the winners of a whole run: measured on every seed, whatever fails, and chosen by no one."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dropsearch
from dropsearch.analysis.measures import MEASURES
from dropsearch.analysis.measures.passes import logits_of
from dropsearch.analysis.measures.protocol import Measured, NotMeasuredError
from dropsearch.core.records import Evidence, Summary, TrialResult
from dropsearch.experiment.checkpoints import kept_checkpoint
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.evidence import measured, quantities
from dropsearch.experiment.tasks.search import searched
from dropsearch.experiment.user_module import TrialModules
from dropsearch.experiment.winners import MOST, measurement_data, trained
from dropsearch.study.store import StudyStore
from tests.experiment.conftest import MEASURED, composed
from tests.user_modules import data, nets


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished run and what it consisted of."""

    context: ExperimentContext
    summary: Summary

    def measured(self, folder: Path | None = None) -> Evidence:
        context = dataclasses.replace(self.context, checkpoints=folder) if folder else self.context
        return measured(context, self.summary.arms)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    config = composed(*MEASURED, "arms=[none,both]", f"output_dir={tmp_path_factory.mktemp('evidence') / 'out'}")
    return Done(build_context(config), searched(config))


@pytest.fixture(scope="module")
def again(done: Done) -> Evidence:
    """What is measured once more."""
    return done.measured()


def test_every_winner_is_measured_on_each_of_its_seeds(done: Done):
    evidence = done.summary.evidence
    assert evidence is not None
    assert list(evidence.arms) == ["none", "both"]
    for name, arm in evidence.arms.items():
        winner = done.summary.arms[name].winner
        assert winner
        assert arm.seeds == winner.seeds
        each = {value for measure in MEASURES.values() for value in measure.values}
        assert set(arm.measures) == each | {"mean_corruption_error"}
        assert all(len(values) == len(arm.seeds) for values in arm.measures.values())
        assert all(len(row) == len(series.x) for series in arm.series.values() for row in series.values)


def test_the_gap_is_that_of_the_retrainings_curves(done: Done):
    assert done.summary.evidence
    winner = done.summary.arms["both"].winner
    assert winner
    gaps = [result.best.val_loss - result.best.train_loss for result in winner.results if result.best]
    assert done.summary.evidence.arms["both"].measures["gap_best"] == pytest.approx(gaps)


def test_every_number_and_curve_is_described(again: Evidence):
    named = {name for arm in again.arms.values() for name in (*arm.measures, *arm.series)}
    assert named <= set(quantities("nats")) == set(again.quantities)


def test_corruption_errors_are_relative_to_the_plain_arm(done: Done):
    evidence = done.summary.evidence
    assert evidence is not None
    none, both = (evidence.arms[name] for name in ("none", "both"))
    assert none.measures["mean_corruption_error"] == pytest.approx([1.0] * len(none.seeds))
    images = {"noise", "salt_and_pepper", "blur", "contrast", "translation"}
    errors = {
        arm: {name: (1 - np.array(found.series[name].values))[:, 1:].sum(1) for name in images & set(found.series)}
        for arm, found in (("none", none), ("both", both))
    }
    expected = np.mean([errors["both"][name] / errors["none"][name] for name in errors["none"]], axis=0)
    assert both.measures["mean_corruption_error"] == pytest.approx(expected)
    assert "mean_corruption_error" in evidence.quantities
    assert "mean_corruption_error" in {c.metric for c in evidence.contrasts}


def test_measuring_again_gives_the_same_numbers(done: Done, again: Evidence):
    first = done.summary.evidence
    assert first is not None
    assert repr((first.arms, first.contrasts)) == repr((again.arms, again.contrasts))


def test_the_planned_contrasts_of_each_measure_are_there(again: Evidence):
    found = again.contrasts
    assert {(c.a, c.b) for c in found} == {("both", "none")}
    assert {"gap_best", "gap_last"} <= {c.metric for c in found}


def test_the_report_states_the_cost_of_the_evidence(done: Done):
    assert "measured in" in (Path(done.context.config.output_dir) / "report.md").read_text()


def test_switched_off_nothing_is_measured(done: Done):
    config = composed(*MEASURED, "arms=[none,both]", "evidence=off", f"output_dir={done.context.config.output_dir}")
    assert searched(config).evidence is None


def test_a_measure_that_fails_loses_its_numbers_and_not_the_run(done: Done, monkeypatch: pytest.MonkeyPatch):
    def fails(trained: object) -> Measured:
        raise ZeroDivisionError("of no use")

    broken = dataclasses.replace(MEASURES["overfitting"], measure=fails)
    monkeypatch.setattr("dropsearch.experiment.evidence.MEASURES", {**MEASURES, "overfitting": broken})
    evidence = done.measured()
    assert all(math.isnan(value) for arm in evidence.arms.values() for value in arm.measures["gap_best"])
    assert evidence.notes == ("overfitting was not measured: ZeroDivisionError: of no use",)


def test_a_model_whose_weights_are_not_finite_has_its_curves_and_a_note(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    winner = done.summary.arms["none"].winner
    assert winner
    broken = kept_checkpoint(done.context.checkpoints, winner.results[0])
    load = ExperimentContext.load

    def loaded(context: ExperimentContext, result: TrialResult, path: Path) -> Any:
        module = load(context, result, path)
        for weight in module.parameters() if path == broken else ():
            weight.data.fill_(math.nan)
        return module

    monkeypatch.setattr(ExperimentContext, "load", loaded)
    evidence = done.measured()
    assert evidence.notes == ("the models were not measured on 1 of 4 models: its logits are not finite",)
    assert all(map(math.isfinite, evidence.arms["none"].measures["gap_best"]))
    for name, measure in MEASURES.items():
        if not measure.of_curve:
            rows = [evidence.arms["none"].measures[value] for value in measure.values]
            assert all(math.isnan(row[0]) for row in rows), name


def test_a_checkpoint_that_cannot_be_read_is_noted(done: Done, tmp_path: Path):
    folder = _copied(done, tmp_path)
    for path in folder.rglob("*.ckpt"):
        path.write_bytes(b"no checkpoint")
    notes = done.measured(folder=folder).notes
    assert notes == ("the models were not measured: its checkpoint is not the file that the run wrote",)


def test_more_held_out_examples_than_need_be_are_drawn_from_by_the_seed(done: Done, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dropsearch.experiment.winners.MOST", 50)
    monkeypatch.setattr("dropsearch.experiment.winners.LEAST", 50)
    one, again = (measurement_data(done.context) for _ in range(2))
    assert len(one.held_out) == 50
    assert torch.equal(one.held_out.inputs[0], again.held_out.inputs[0])
    assert one.held_out_size == done.context.source.sizes["test"]
    assert done.measured().notes == ("models were measured with 50 of the 359 held-out examples",)
    assert MOST > 359


def test_models_are_looked_at_with_the_split_that_they_were_trained_on(done: Done):
    source, winner = done.context.source, done.summary.arms["both"].winner
    assert winner is not None
    shared = measurement_data(done.context)
    for result in winner.results:
        own = source.for_trial(result.spec)
        model = trained(done.context, shared, result, kept_checkpoint(done.context.checkpoints, result))
        for examples, indices in ((model.validation, own.val), (model.train, own.train_part)):  # type: ignore[union-attr]
            assert torch.equal(examples.inputs[0], own.examples[0][indices])  # type: ignore[union-attr]
        assert result.best is not None
        loss = F.cross_entropy(logits_of(model, model.validation.inputs), model.validation.targets)
        assert loss.item() == pytest.approx(result.best.val_loss, rel=1e-5)


@pytest.mark.parametrize("part", ["measured", "with_searches", "claims"])
def test_a_run_outlives_what_fails_as_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str
):
    def fails(*_: object) -> None:
        raise ZeroDivisionError("nothing there")

    monkeypatch.setattr(f"dropsearch.experiment.evidence.{part}", fails)
    out = tmp_path / "out"
    summary = searched(composed(*MEASURED, "arms=[none]", "confirm.top_k=1", "study.n_trials=1", f"output_dir={out}"))
    told = "what dropout did in the winners was not measured (ZeroDivisionError: nothing there)"
    assert summary.evidence is None
    assert summary.arms["none"].test
    assert {"results.json", "report.md", "report.html", "best"} <= {path.name for path in out.iterdir()}
    assert told[1:] in (out / "report.md").read_text()
    assert f"evidence: {told}" in capsys.readouterr().err


class Endless:
    """The data of a run, with a test set that never ends."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def test_dataloader(self) -> Any:
        return itertools.cycle(list(self._source.test_dataloader()))


@pytest.mark.parametrize(("limit", "most"), [("LARGEST", 1000), ("LARGEST_SIZE", 2**18)])
def test_a_set_that_does_not_end_is_given_up(done: Done, monkeypatch: pytest.MonkeyPatch, limit: str, most: int):
    monkeypatch.setattr(f"dropsearch.experiment.winners.{limit}", most)
    with pytest.raises(NotMeasuredError, match="larger or infinite"):
        measurement_data(dataclasses.replace(done.context, source=cast(Any, Endless(done.context.source))))


def _copied(done: Done, folder: Path) -> Path:
    """Copy the checkpoints; where the results themselves point is where they were."""
    for path in done.context.checkpoints.rglob("*.ckpt"):
        copy = folder / path.relative_to(done.context.checkpoints)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return folder


def searched_own(module: Any, data: Any, folder: Path) -> Evidence:
    result = dropsearch.search(
        module,
        data,
        n_trials=2,
        max_epochs=2,
        confirm_top_k=1,
        confirm_seeds=2,
        accelerator="cpu",
        engine="sequential",
        arms=["dropout"],
        overrides=["evidence.severities=1", "evidence.monte_carlo=[1,2]"],
        output_dir=folder / "out",
    )
    assert result.summary.evidence
    return result.summary.evidence


def test_a_user_module_that_returns_logits_is_measured(tmp_path: Path):
    evidence = searched_own(nets.Deeper, data.WithTest(), tmp_path)
    found = evidence.arms["dropout"].measures
    for name in ("dead_share", "knockout_area"):
        assert all(map(math.isfinite, found[name])), name
    assert not [note for note in evidence.notes if "models" in note or "coadaptation" in note]


def test_of_one_with_functional_activations_it_says_what_cannot_be_seen(tmp_path: Path):
    evidence = searched_own(nets.LitNet, data.Digits(), tmp_path)
    (note,) = (note for note in evidence.notes if note.startswith("coadaptation"))
    assert "it needs hidden layers with activation modules such as nn.ReLU, and there are none" in note


def test_of_batches_that_are_not_inputs_and_classes_only_the_curves_are_looked_at(tmp_path: Path):
    evidence = searched_own(OfDicts, data.Dicts(), tmp_path)
    assert evidence.notes[0] == (
        "only the curves were measured, not the models: it needs batches of input tensors followed by integer classes "
        "[batch]"
    )
    found = evidence.arms["dropout"].measures
    assert all(map(math.isfinite, found["gap_best"]))
    assert all(map(math.isnan, found["knockout_area"]))


class OfDicts(nets.Deeper):
    """Takes batches apart itself, whatever they are."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(_pair(batch), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(_pair(batch), batch_idx)


def _pair(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(batch.values()) if isinstance(batch, dict) else batch


def test_no_gap_is_measured_where_validation_examples_are_training_examples(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    found = dropsearch.search(
        nets.LitNet, data.Seen(), output_dir=tmp_path, n_trials=1, max_epochs=1, accelerator="cpu", arms=["none"],
        confirm_top_k=1, confirm_seeds=1, tracking="none",
    )  # fmt: skip
    assert found.summary.evidence is not None
    assert "gap_best" not in found.summary.evidence.arms["none"].measures
    assert any("100 % of the validation examples equal a training" in note for note in found.summary.evidence.notes)


def test_an_earlier_run_is_measured_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = (*MEASURED, "arms=[none,both]")
    out = f"output_dir={tmp_path / 'out'}"
    assert searched(composed(*given, "evidence=off", out)).evidence is None
    at_once = searched(composed(*given, f"output_dir={tmp_path / 'again'}")).evidence
    monkeypatch.setattr(StudyStore, "ask", lambda *_: pytest.fail("a trial was asked for"))
    monkeypatch.setattr(TrialModules, "test_scores", lambda *_: pytest.fail("the test set was opened"))
    later = searched(composed(*given, out)).evidence
    assert later is not None
    assert at_once is not None
    assert (later.arms, later.contrasts) == (at_once.arms, at_once.contrasts)
