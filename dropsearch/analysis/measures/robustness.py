"""Accuracy on corrupted inputs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from dropsearch.analysis.measures.corruptions import STRONGEST, corrupted
from dropsearch.analysis.measures.passes import logits_of
from dropsearch.analysis.measures.protocol import Examples, Measured, TrainedModel
from dropsearch.analysis.measures.scores import accuracy
from dropsearch.core.records import Quantity

NOISES = ("noise", "salt_and_pepper")
"""Corruptions by noise."""
VALUES = {
    "noise_area": Quantity("accuracy kept under noise", higher_is_better=True),
    "robustness_area": Quantity("accuracy kept under corruption of any kind", higher_is_better=True),
    "corruption_error": Quantity("mean error under corruption", higher_is_better=False),
}
RELATIVE = {
    "mean_corruption_error": Quantity("errors under corruption relative to those of none", higher_is_better=False)
}
"""Measures that need the curves of two networks."""
SERIES = {
    kind.__name__: Quantity(f"accuracy under {kind.__name__.replace('_', ' ')}", higher_is_better=True)
    for kind in STRONGEST
}


def measure(trained: TrainedModel) -> Measured:
    """Measure accuracy on held-out examples under each corruption at each severity.

    `robustness_area` is the mean accuracy over all corruptions and severities divided by that on clean examples; 1
    means no loss. `noise_area` is the same over `NOISES` only; `corruption_error` is the mean error over all. The
    series, one per corruption (`noise`, `salt_and_pepper`, and for images `blur`, `contrast`, `translation`), are
    accuracies by severity, with clean examples at 0. All values are NaN without real-valued features; the areas are NaN
    if no clean example is classified correctly.
    """
    clean = _accuracy(trained, trained.held_out)
    found: defaultdict[str, list[float]] = defaultdict(lambda: [clean])
    for name, examples in corrupted(trained.held_out, trained.is_image, trained.settings):
        found[name].append(_accuracy(trained, examples))
    series = {name: (range(len(curve)), curve) for name, curve in found.items()}
    under = {name: fmean(curve[1:]) for name, curve in found.items()}
    noise, every = _mean(under[name] for name in NOISES if name in under), _mean(under.values())
    areas = [each / clean if clean > 0 else math.nan for each in (noise, every)]
    return Measured({"noise_area": areas[0], "robustness_area": areas[1], "corruption_error": 1 - every}, series)


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return fmean(known) if known else math.nan


def _accuracy(trained: TrainedModel, examples: Examples) -> float:
    return accuracy(logits_of(trained, examples.inputs), examples.targets)


def mean_corruption_error(of: Mapping[str, Sequence[float]], reference: Mapping[str, Sequence[float]]) -> float:
    """Return the mean corruption error relative to a reference network (Hendrycks & Dietterich 2019).

    This is the mean over corruptions of the ratio of errors summed over severities; 1 for the reference itself. It is
    lower for a network that is more robust or just more accurate. NaN if the reference has no error under a corruption.

    Args:
        of: Accuracies by corruption and severity, from 0 (clean, not used).
        reference: Accuracies of the reference, here a network of the arm `none` with the same seed.

    Raises:
        ValueError: The corruptions differ.
    """
    if set(of) != set(reference) or not of:
        raise ValueError(f"corruptions must be the same and at least one, got {sorted(of)} and {sorted(reference)}")
    errors = {name: (_errors(of[name]), _errors(reference[name])) for name in of}
    return fmean(own / other if other > 0 else math.nan for own, other in errors.values())


def _errors(curve: Sequence[float]) -> float:
    return sum(1 - each for each in curve[1:])
