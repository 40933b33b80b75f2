"""The evidence of a run: measures of the winners by arm, what the searches show, and the claims that follow."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from dropsearch.analysis.claims import claims
from dropsearch.analysis.measures import MEASURES, robustness
from dropsearch.analysis.measures.ensemble import deep_ensemble
from dropsearch.analysis.measures.overfitting import LOSS_UNIT
from dropsearch.analysis.measures.passes import logits_of
from dropsearch.analysis.measures.protocol import Measured, NotMeasuredError, TrainedModel
from dropsearch.core.errors import first_cause
from dropsearch.core.records import (
    ArmEvidence,
    ArmOutcome,
    Confirmed,
    Evidence,
    Quantity,
    Series,
    Summary,
    TrialResult,
    Variation,
)
from dropsearch.experiment.arm_runner import ArmRunner
from dropsearch.experiment.checkpoints import kept_checkpoint
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.landscape import with_searches
from dropsearch.experiment.phases import varied
from dropsearch.experiment.winners import MeasurementData, measurement_data, trained
from dropsearch.stats.comparisons import contrasts
from dropsearch.study.retrainings import RETRAININGS

MOST_SHARED = 0.1
"""Largest share of the validation examples that may be training examples where overfitting is measured."""


def collect_evidence(arm_runner: ArmRunner, summary: Summary, step: Callable[[], None] = lambda: None) -> Evidence:
    """Return the evidence of a finished run."""
    started = time.perf_counter()
    evidence = measured(arm_runner.context, summary.arms, step)
    evidence = with_searches(evidence, arm_runner.context, arm_runner.studies, summary.arms)
    evidence = dataclasses.replace(evidence, variations=_variations(arm_runner, summary))
    return dataclasses.replace(evidence, claims=claims(evidence, summary), seconds=time.perf_counter() - started)


def _variations(arm_runner: ArmRunner, summary: Summary) -> dict[str, dict[str, tuple[Variation, ...]]]:
    """Return the variations of the winners by the title of their retraining and by arm, without empty entries."""
    found: dict[str, dict[str, tuple[Variation, ...]]] = {}
    for phase, retraining in RETRAININGS.items():
        for arm in arm_runner.studies:
            name = arm.arm.name
            if variations := varied(arm, summary.arms[name], phase, summary.fixed_luck):
                found.setdefault(retraining.title, {})[name] = variations
    return found


@dataclass
class _Notes:
    """Reasons why something was not measured, without duplicates."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """Number of models by missing measure and reason."""
    others: list[str] = field(default_factory=list)

    def add(self, what: str, why: str) -> None:
        self.counts[what, why] = self.counts.get((what, why), 0) + 1

    def once(self, line: str) -> None:
        """Add a note of the whole run."""
        if line not in self.others:
            self.others.append(line)

    def as_notes(self, models: int) -> tuple[str, ...]:
        """Return the notes of a run with `models` measured models."""
        lines = [
            f"{what} not measured{'' if count == models else f' on {count} of {models} models'}: {why}"
            for (what, why), count in self.counts.items()
        ]
        return (*self.others, *lines)


def measured(
    context: ExperimentContext, arms: Mapping[str, ArmOutcome], step: Callable[[], None] = lambda: None
) -> Evidence:
    """Measure the effects of dropout in each arm's confirmed winner, for each seed.

    The results are not used for selection. If a model cannot be measured, its numbers are missing, with a note.
    """
    notes = _Notes()
    winners = {name: outcome.winner for name, outcome in arms.items() if outcome.winner}
    shared = _shared(context, notes)
    found = _related({name: _arm(context, shared, winner, notes, step) for name, winner in winners.items()})
    return Evidence(
        found,
        contrasts=contrasts(found, context.modules.fixed_luck),
        notes=notes.as_notes(sum(len(winner.results) for winner in winners.values())),
        quantities=quantities(context.modules.comparison_metric.loss_unit),
    )


def quantities(loss_unit: str) -> dict[str, Quantity]:
    """Return the quantity of each value and series by name."""
    return {
        name: dataclasses.replace(quantity, unit=loss_unit) if quantity.unit == LOSS_UNIT else quantity
        for known in (*(each for m in MEASURES.values() for each in (m.values, m.series)), robustness.RELATIVE)
        for name, quantity in known.items()
    }


def _related(arms: Mapping[str, ArmEvidence]) -> dict[str, ArmEvidence]:
    """Return the arms with errors under corruption relative to the arm `none`, for each seed."""
    reference = _corrupted(arms["none"]) if "none" in arms else {}
    return {name: _relative(arm, reference) if reference else arm for name, arm in arms.items()}


def _corrupted(arm: ArmEvidence) -> dict[int, dict[str, Sequence[float]]]:
    """Return accuracies by seed, corruption and severity."""
    known = {name: arm.series[name].values for name in robustness.SERIES if name in arm.series}
    return {seed: {name: rows[i] for name, rows in known.items()} for i, seed in enumerate(arm.seeds)} if known else {}


def _relative(arm: ArmEvidence, reference: Mapping[int, Mapping[str, Sequence[float]]]) -> ArmEvidence:
    curves = _corrupted(arm)
    if not curves:
        return arm
    errors = tuple(
        robustness.mean_corruption_error(curves[seed], reference[seed]) if seed in reference else math.nan
        for seed in arm.seeds
    )
    return dataclasses.replace(arm, measures={**arm.measures, "mean_corruption_error": errors})


def _shared(context: ExperimentContext, notes: _Notes) -> MeasurementData | None:
    try:
        shared = measurement_data(context)
    except NotMeasuredError as error:
        notes.others.append(f"only the curves were measured, not the models: {error}")
        return None
    if shared.held_out_size > (looked := len(shared.held_out)):
        notes.others.append(f"models were measured with {looked:,} of the {shared.held_out_size:,} held-out examples")
    return shared


def _arm(
    context: ExperimentContext,
    shared: MeasurementData | None,
    winner: Confirmed,
    notes: _Notes,
    step: Callable[[], None],
) -> ArmEvidence:
    models, logits = [], []
    source, names = context.source, list(MEASURES)
    if not source.sizes["train"]:
        names.remove("overfitting")
        notes.once("overfitting was not measured: an iterable training set has no fixed part to measure the loss on")
    elif (share := getattr(source, "share_in_training", 0.0)) > MOST_SHARED:
        names.remove("overfitting")
        notes.once(
            f"overfitting was not measured: {100 * share:.0f} % of the validation examples equal a training example"
        )
    for result in winner.results:
        model = None
        if shared is not None:
            try:
                model = trained(context, shared, result, kept_checkpoint(context.checkpoints, result))
                logits.append(logits_of(model, shared.held_out.inputs))
            except NotMeasuredError as error:
                notes.add("the models were", str(error))
        models.append(_model(result, model, notes, names))
        step()
    names = dict.fromkeys(name for model in models for name in model.values)
    curves = dict.fromkeys(name for model in models for name in model.series)
    series = {name: _series([model.series.get(name, ((), ())) for model in models]) for name in curves}
    if shared is not None and len(models) == len(logits) > 1:
        series |= deep_ensemble(torch.stack(logits), shared.held_out.targets)
    values = {name: tuple(float(model.values.get(name, math.nan)) for model in models) for name in names}
    return ArmEvidence(winner.seeds, values, series)


def _model(result: TrialResult, model: TrainedModel | None, notes: _Notes, names: Collection[str]) -> Measured:
    """Return the measures of one retraining, with NaN for missing ones."""
    values, series = {}, {}
    for name in names:
        found = _measured_or_noted(name, result if MEASURES[name].of_curve else model, notes)
        values |= dict.fromkeys(MEASURES[name].values, math.nan) | dict(found.values)
        series |= found.series
    return Measured(values, series)


def _measured_or_noted(name: str, subject: TrialResult | TrainedModel | None, notes: _Notes) -> Measured:
    try:
        return Measured() if subject is None else MEASURES[name].measure(subject)
    except NotMeasuredError as error:
        notes.add(f"{name} was", str(error))
    except Exception as error:  # a failing user module must not end the run
        notes.add(f"{name} was", f"{type(error).__name__}: {first_cause(error)[:200]}")
    return Measured()


def _series(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Series:
    """Return the curves of several models as one series, over the longest x; a shorter curve ends in NaN."""
    x = max((points for points, _ in curves), key=len)
    rows = [tuple(map(float, values)) + (math.nan,) * (len(x) - len(values)) for _, values in curves]
    return Series(tuple(map(float, x)), tuple(rows))
