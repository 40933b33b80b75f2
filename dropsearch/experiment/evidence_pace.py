"""The duration of the evidence, measured on an untrained model."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import torch

from dropsearch.analysis.measures import MEASURES
from dropsearch.analysis.measures.protocol import Examples, NotMeasuredError, TrainedModel
from dropsearch.core.preparation import preparing
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.pilot import pilot_specs
from dropsearch.experiment.standstill import named_if_still
from dropsearch.experiment.winners import MOST, MeasurementData, measurement_data, split_examples

LOOK_SECONDS = 0.5
"""Estimated seconds to measure a model, in runs with fewer than `MANY_MODELS`."""
MANY_MODELS = 20
ONCE_SECONDS = 3.0
"""Seconds; a longer first measurement is not repeated."""
WARMING = 16
"""Number of examples of a measurement that is not timed, since it includes imports and compilation."""


def evidence_pace(
    context: ExperimentContext, clock: Callable[[], float] = time.perf_counter, *, thorough: bool = False
) -> float:
    """Return the seconds to measure one model, from an untrained one; 0 if it cannot be measured.

    Validation examples replace those of the test set, in the same number.

    Args:
        thorough: Measure models of two arms, also in a run with few models.
    """
    config = context.config
    if config.evidence.name == "off":
        return 0.0
    if not thorough and len(config.arms) * config.confirm.seeds < MANY_MODELS:
        return LOOK_SECONDS
    try:
        what = "measuring how long the evidence takes"
        with preparing(what), named_if_still(what):
            return _pace_of_looks(context, clock, 1 + thorough)
    except Exception:  # user modules may raise anything; trained models report the error
        return 0.0


def _pace_of_looks(context: ExperimentContext, clock: Callable[[], float], arms: int) -> float:
    shared = measurement_data(context, opens_test=False)
    last = context.config.arms[-1]
    _look(context, shared, last, clock, WARMING)  # imports and compiles
    found = [_look(context, shared, last, clock)]
    if arms > 1 and found[0] <= ONCE_SECONDS and context.config.arms[0] != last:
        # Arms without dropout have fewer measures.
        found.append(_look(context, shared, context.config.arms[0], clock))
    return sum(found) / len(found)


def _look(
    context: ExperimentContext, shared: MeasurementData, arm: str, clock: Callable[[], float], most: int = MOST
) -> float:
    """Return the duration of the measures on an untrained model of an arm and at most `most` examples, in seconds."""
    (spec,) = pilot_specs(context, arm, 1)
    validation, train = (each.sample(most, 0) for each in split_examples(context, shared, spec))
    held_out = _as_many(validation, min(context.source.sizes.get("test", 0), most))
    module = context.make_module(spec).to(held_out.targets.device).eval()
    model = TrainedModel(spec, module, module, held_out, validation, train, shared.is_image, shared.settings)
    started = clock()
    for measure in MEASURES.values():
        if not measure.of_curve:
            with suppress(NotMeasuredError):
                measure.measure(model)
    return clock() - started


def _as_many(examples: Examples, count: int) -> Examples:
    """Repeat examples up to the number that is measured of a set of this size."""
    return examples.take(torch.arange(min(count, MOST) or len(examples)) % len(examples))
