"""Co-adaptation: similarity and sparsity of hidden units, and accuracy after knocking out units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dropsearch.analysis.measures.activations import Hidden, hearing, hidden_layers
from dropsearch.analysis.measures.protocol import Examples, Measured, TrainedModel
from dropsearch.analysis.measures.scores import accuracy
from dropsearch.core.records import Quantity
from dropsearch.stats.intervals import finite_mean

VALUES = {
    "correlation": Quantity("mean |correlation| between hidden units", higher_is_better=False),
    "participation": Quantity("participation ratio of hidden units", higher_is_better=True),
    "mean_activation": Quantity("mean absolute activation"),
    "active_share": Quantity("share of activations above a tenth of the largest"),
    "dead_share": Quantity("share of hidden units that are dead", higher_is_better=False),
    "knockout_area": Quantity("accuracy kept when hidden units are knocked out", higher_is_better=True),
}
SERIES = {"knockout": Quantity("accuracy with a share of hidden units knocked out", higher_is_better=True)}

EXAMPLES = 512
"""Number of held-out examples; each is evaluated `len(SHARES) * ORDERS` times."""
SHARES = tuple(tenth / 10 for tenth in range(10))
ORDERS = 3
"""Number of random knockout orders, over which accuracies are averaged."""
ALIKE = 1e-6
"""Units whose activations vary by at most this share of the largest one are constant, so dead."""


def measure(trained: TrainedModel) -> Measured:
    """Measure hidden activations on held-out examples in evaluation mode, and the dependence on single units.

    `dead_share` is the share of units whose activation is the same for every input. The other measures exclude them:
    `correlation`, `participation`, `mean_activation` and `active_share`, each a mean over hidden layers. `knockout` is
    the accuracy with a share of the units of every hidden layer replaced by their means; `knockout_area` is the mean of
    that curve relative to the accuracy of the intact network.
    """
    examples = trained.held_out.sample(EXAMPLES, trained.settings.seed)
    layers, logits = hidden_layers(trained, examples.inputs)
    each = [layer_measures(layer.values) for layer in layers]
    values = {name: finite_mean(found[name] for found in each) for name in each[0]}
    curve = [accuracy(logits, examples.targets), *_knockout(trained, examples, layers)]
    return Measured({**values, "knockout_area": relative_area(SHARES, curve)}, {"knockout": (SHARES, curve)})


def layer_measures(values: Tensor) -> dict[str, float]:
    """Return the measures of one layer's activations `[observations, units]`; NaN if all units are dead."""
    values = values.double()
    sizes = values.abs()
    alive = (values.amax(0) - values.amin(0)) > ALIKE * sizes.amax()
    live = values[:, alive]
    found = {"dead_share": 1 - alive.double().mean().item()}
    if not live.shape[1]:
        return found | dict.fromkeys(("correlation", "participation", "mean_activation", "active_share"), math.nan)
    sizes = sizes[:, alive]
    return found | {
        "correlation": mean_correlation(live),
        "participation": participation_ratio(live),
        "mean_activation": sizes.mean().item(),
        "active_share": (sizes > sizes.amax() / 10).double().mean().item(),
    }


def mean_correlation(values: Tensor) -> float:
    """Return the mean absolute Pearson correlation over all pairs of units `[observations, units]`; NaN for one unit.

    Cogswell et al. 2016 penalize the covariance to achieve the effect attributed to dropout.
    """
    units = values.shape[1]
    if units < 2:
        return math.nan
    centred = values - values.mean(0)
    scaled = centred / centred.norm(dim=0)
    sizes = (scaled.T @ scaled).abs()
    return ((sizes.sum() - sizes.diagonal().sum()) / (units * (units - 1))).item()


def participation_ratio(values: Tensor) -> float:
    """Return the effective number of dimensions of the units `[observations, units]`, as a share of their number.

    (trace C)^2 / trace(C^2) of the covariance C, divided by the number of units (Gao et al. 2017): 1 if all units vary
    equally and independently, 1 / units if they are multiples of one another.
    """
    centred = values - values.mean(0)
    covariance = centred.T @ centred
    ratio = covariance.trace().square() / covariance.square().sum()
    return (ratio / values.shape[1]).item()


def relative_area(shares: Sequence[float], accuracies: Sequence[float]) -> float:
    """Return the mean of a curve by the trapezoid rule, relative to its first value; NaN if that is zero."""
    points = pairwise(zip(shares, accuracies, strict=True))
    area = sum((right - left) * (high + low) / 2 for (left, low), (right, high) in points)
    return area / (shares[-1] - shares[0]) / accuracies[0] if accuracies[0] else math.nan


def _knockout(trained: TrainedModel, examples: Examples, layers: Sequence[Hidden]) -> list[float]:
    """Return the accuracy at each of `SHARES` except the first, averaged over `ORDERS` random orders."""
    means = {layer.number: layer.values.mean(0) for layer in layers}
    orders = [_order(means, trained.settings.seed + repeat) for repeat in range(ORDERS)]
    return [
        sum(_accuracy_without(trained, examples, means, order, share) for order in orders) / ORDERS
        for share in SHARES[1:]
    ]


def _order(means: Mapping[int, Tensor], seed: int) -> dict[int, Tensor]:
    """Return the position of each unit of each layer in a random order; equal for layers of the same size."""
    generator = torch.Generator().manual_seed(seed)
    return {
        number: torch.randperm(len(mean), generator=generator).argsort().to(mean.device)
        for number, mean in means.items()
    }


def _accuracy_without(
    trained: TrainedModel, examples: Examples, means: Mapping[int, Tensor], order: Mapping[int, Tensor], share: float
) -> float:
    def replaced(number: int, activations: Tensor, axis: int) -> Tensor | None:
        if number not in means:
            return None
        gone = order[number] < round(share * len(order[number]))
        units = activations.movedim(axis, -1)
        return torch.where(gone, means[number].to(units.dtype), units).movedim(-1, axis)

    with torch.no_grad(), hearing(trained.module, replaced):
        return accuracy(trained.predict(*examples.inputs), examples.targets)
