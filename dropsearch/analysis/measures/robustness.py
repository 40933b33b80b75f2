"""How accuracy falls as inputs are corrupted."""

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
"""The corruptions that are noise, and no change of what is seen."""
VALUES = {
    "noise_area": Quantity("accuracy kept under noise", higher_is_better=True),
    "robustness_area": Quantity("accuracy kept under corruption of any kind", higher_is_better=True),
    "corruption_error": Quantity("mean error under corruption", higher_is_better=False),
}
RELATIVE = {
    "mean_corruption_error": Quantity("errors under corruption relative to those of none", higher_is_better=False)
}
"""What takes the curves of two networks."""
SERIES = {
    kind.__name__: Quantity(f"accuracy under {kind.__name__.replace('_', ' ')}", higher_is_better=True)
    for kind in STRONGEST
}


def measure(trained: TrainedModel) -> Measured:
    """Measure accuracy on held-out examples under each corruption at each severity.

    `robustness_area` is the mean accuracy over all corruptions and severities divided by that on clean examples: 1
    loses nothing. `noise_area` is the same over `NOISES` alone, and `corruption_error` the mean error over all. The
    series, one a corruption (`noise`, `salt_and_pepper`, and of images `blur`, `contrast`, `translation`), are
    accuracies by severity, clean at 0. Without real-valued features all are NaN, and the areas where no clean example
    is told right.
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
    """Return the mean corruption error, a network's errors relative to those of another (Hendrycks & Dietterich 2019).

    The mean over corruptions of the ratio of the errors, each summed over severities; 1 is the reference itself. It
    falls both for a network that is more robust and for one that is merely better. NaN where the reference makes no
    error under a corruption.

    Args:
        of: Accuracies by corruption, by severity from 0 (clean, which is left out).
        reference: The same of the reference, here a network of the arm `none` with the same seed.

    Raises:
        ValueError: The two have not the same corruptions.
    """
    if set(of) != set(reference) or not of:
        raise ValueError(f"corruptions must be the same and at least one, got {sorted(of)} and {sorted(reference)}")
    errors = {name: (_errors(of[name]), _errors(reference[name])) for name in of}
    return fmean(own / other if other > 0 else math.nan for own, other in errors.values())


def _errors(curve: Sequence[float]) -> float:
    return sum(1 - each for each in curve[1:])
