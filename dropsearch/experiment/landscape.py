"""Results of the searches: score by rate of each site, and by number of trials."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from dropsearch.analysis.budget import random_search, repeated_searches
from dropsearch.analysis.response_curves import responses
from dropsearch.core.records import ArmOutcome, Budget, Evidence, Monitor, Response, TrialResult
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.studies import ArmStudies
from dropsearch.study.importance import site_importances, unknown

Curve = TypeVar("Curve", Response, Budget)


def with_searches(
    evidence: Evidence, context: ExperimentContext, studies: Sequence[ArmStudies], outcomes: Mapping[str, ArmOutcome]
) -> Evidence:
    """Return the evidence with the response curves and the budgets of each arm's search."""
    pairs = [(arm, outcomes[arm.arm.name]) for arm in studies]
    curves = {arm.arm.name: _responses(context, arm, outcome) for arm, outcome in pairs}
    budgets = {arm.arm.name: _budget(context, arm, outcome) for arm, outcome in pairs}
    return dataclasses.replace(
        evidence,
        responses={name: curve for name, curve in curves.items() if curve},
        budgets={name: budget for name, budget in budgets.items() if budget},
        notes=(*evidence.notes, *_notes(studies)),
    )


def _notes(studies: Sequence[ArmStudies]) -> Iterator[str]:
    for arm in studies:
        reason = unknown(arm.search, arm.space) if arm.space.parameter_sites else ""
        if reason:
            yield f"the importance of the sites of {arm.arm.name} is not known: {reason}"


def _responses(context: ExperimentContext, arm: ArmStudies, outcome: ArmOutcome) -> tuple[Response, ...]:
    found = responses(
        outcome.trials,
        arm.space.sites,
        site_importances(arm.search, arm.space),
        outcome.rates,
        outcome.typical,
        context.space.low,
        context.space.high,
    )
    return tuple(_shown(response, outcome.monitor) for response in found)


def _budget(context: ExperimentContext, arm: ArmStudies, outcome: ArmOutcome) -> Budget | None:
    """Return the arm's best score by number of trials, from repetitions or from independent trials."""
    searches = (outcome.trials, *outcome.repeats)
    floor = _floor(outcome.monitor, [trial for search in searches for trial in search])
    found = repeated_searches(searches, floor)
    if found is None and context.config.sampler.name == "random":
        # Without the first trials (typical rates and zeros), which were not drawn.
        found = random_search([t for t in outcome.trials if not arm.space.is_given(t.spec.params)], floor)
    return _shown(found, outcome.monitor) if found else None


def _floor(monitor: Monitor, trials: Sequence[TrialResult]) -> float:
    """Return the lower bound of the objective, inferred from its name or its values.

    A loss is bounded by 0. A minimized metric that was never negative is assumed to be bounded by 0, and a maximized
    metric that was always in [0, 1] is assumed to be a share.
    """
    if monitor.is_val_loss:
        return 0.0
    seen = [monitor.objective(trial.best.objective) for trial in trials if trial.best]
    if monitor.mode == "min":
        return 0.0 if min(seen, default=-1.0) >= 0 else -math.inf
    return -1.0 if seen and min(seen) >= 0 and max(seen) <= 1 else -math.inf


def _shown(curve: Curve, monitor: Monitor) -> Curve:
    """Convert a curve of the minimized objective to the monitored metric."""
    if monitor.mode == "min":
        return curve
    expected, low, high = (
        tuple(monitor.objective(value) for value in line) for line in (curve.expected, curve.high, curve.low)
    )
    return dataclasses.replace(curve, expected=expected, low=low, high=high)
