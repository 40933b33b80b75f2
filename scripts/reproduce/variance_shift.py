"""`variance_shift.py [OVERRIDES]`: what dropout does to the variance that a BatchNorm behind it has learnt.

Published (Li et al. 2019): a BatchNorm right behind a dropout that keeps a share q of activations with mean c and
variance v sees, in evaluation, v / ((c^2 + v)/q - c^2) times the variance of training. For ReLU(N(0, 1)) that is 0.860,
0.732, 0.614 and 0.405 at dropping rates of 0.1, 0.2, 0.3 and 0.5. Measured on such numbers and on trained networks,
with each BatchNorm right behind a dropout (model.dropout_before_norm=true) and in its usual place, in front of the
activation, by dropsearch's own measure (all but dropout as in evaluation) and, as published, against the variance that
BatchNorm has learnt. A layer's number is the median of its units.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trainings import WEIGHT_DECAY, Contrast, Trainings, columns, show

from dropsearch.analysis.measures.protocol import TrainedModel
from dropsearch.analysis.measures.variance_shift import DEAD, recalibration, shifts
from dropsearch.core.records import TrialSpec
from dropsearch.core.seeds import confirmation_seeds
from dropsearch.stats.intervals import mean_interval

PUBLISHED = {0.1: 0.860, 0.2: 0.732, 0.3: 0.614, 0.5: 0.405}
"""Ratio by dropping rate, for ReLU(N(0, 1))."""
RATES = (0.0, *PUBLISHED)
"""Without dropout what recalibrating gains is due to statistics that lag behind the weights, and to nothing else."""
SEEDS = 8
LEARNING_RATE = 1e-3
NETWORKS = {
    "MLP on MNIST": [
        "model=mlp",
        "model.hidden=[256,256,256]",
        "data=mnist",
        "data.train_size=5000",
        "trainer.max_epochs=8",
    ],
    "CNN on MNIST-1D": [
        "model=cnn",
        "model.channels=[16,16,16]",
        "model.kernel_size=5",
        "model.head=[64]",
        "data=mnist1d",
        "trainer.max_epochs=12",
    ],
}

Moments = dict[str, tuple[Tensor, Tensor]]
"""By layer: the mean and the variance of each unit, each [units]."""


@dataclass(frozen=True)
class Shift:
    """What one trained network shows, by BatchNorm layer."""

    measured: dict[str, float]
    """Variance with dropout off through that with dropout on, all else as in evaluation."""
    learnt: dict[str, float]
    """Variance in evaluation through that which BatchNorm has learnt."""
    expected: dict[str, float]
    """The closed form."""
    accuracy: float
    """On the test set, %."""
    gain: float
    """Points of it that are gained where BatchNorm's statistics are measured again with dropout off."""


def drawn_ratio(rate: float) -> float:
    """Return the ratio measured on ReLU(N(0, 1)) that a dropout drops."""
    numbers = torch.randn(4_000_000, generator=torch.Generator().manual_seed(0)).relu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return float(numbers.var() / F.dropout(numbers, rate).var())


def closed_form(mean: Tensor, variance: Tensor, rate: float) -> Tensor:
    """Return the ratio of units with these moments [units] in front of their dropout."""
    return variance / ((mean**2 + variance) / (1 - rate) - mean**2)


@torch.no_grad()
def moments(trained: TrainedModel) -> Moments:
    """Return mean and variance of what goes into each BatchNorm, with dropout off, on training examples."""
    found: Moments = {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            units = inputs[0].transpose(0, 1).flatten(1).double()
            found[name] = units.mean(1), units.var(1)

        return hook

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in norms(trained.module).items()]
    trained.predict(*trained.train.inputs)
    for hook in hooks:
        hook.remove()
    return found


def norms(module: nn.Module) -> dict[str, Any]:
    """Return the BatchNorm layers by name, in the order of a forward pass."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    return {name: part for name, part in module.named_modules() if isinstance(part, kinds)}


def median(ratios: Tensor, variance: Tensor) -> float:
    """Return the median of a layer's units [units] whose activations vary at all."""
    return float(ratios[variance > DEAD * variance.max()].median())


def shift(trainings: Trainings, spec: TrialSpec, rate: float) -> Shift:
    """Measure one trained network."""
    trained = trainings.trained(spec)
    found, layers = moments(trained), norms(trained.module)
    before, after = recalibration(trained)
    return Shift(
        dict(shifts(trained)),
        {name: median(var / layers[name].running_var, var) for name, (_, var) in found.items()},
        {name: median(closed_form(mean, var, rate), var) for name, (mean, var) in found.items()},
        trainings.test_accuracy(spec),
        100 * (after - before),
    )


def measured(overrides: Sequence[str], *, behind: bool) -> dict[float, list[Shift]]:
    """Train a network at each rate on all seeds, and return what they show, by rate."""
    trainings = Trainings([*overrides, f"model.dropout_before_norm={behind}", "model.input_dropout=false"], ["both"])
    plan = {
        rate: [
            TrialSpec("both", 100 * place + i, seed, dict.fromkeys(trainings.sites, rate), LEARNING_RATE, WEIGHT_DECAY)
            for i, seed in enumerate(confirmation_seeds(0, SEEDS))
        ]
        for place, rate in enumerate(RATES)
    }
    trainings.train([spec for specs in plan.values() for spec in specs])
    return {rate: [shift(trainings, spec, rate) for spec in specs] for rate, specs in plan.items()}


def ratio_rows(name: str, place: str, by_rate: dict[float, list[Shift]]) -> Iterator[str]:
    """Yield a line for each rate and layer: the closed form where it applies, and both ratios."""
    for rate, every in by_rate.items():
        for layer in every[0].measured:
            expected = f"{fmean(s.expected[layer] for s in every):.3f}" if place == "behind" else ""
            found = [mean_interval([s.measured[layer] for s in every]), mean_interval([s.learnt[layer] for s in every])]
            cells = [f"{f.mean:.3f} ({f.low:.3f} to {f.high:.3f})" for f in found]
            yield columns(name, place, rate, layer.removeprefix("net.").removesuffix(".norm"), expected, *cells)


def accuracy_rows(name: str, behind: dict[float, list[Shift]], usual: dict[float, list[Shift]]) -> Iterator[str]:
    """Yield a line for each rate: accuracies of both places, their difference, and what recalibrating gives."""
    for rate in behind:
        pair = behind[rate], usual[rate]
        means = (f"{fmean(s.accuracy for s in every):.2f}" for every in pair)
        cost = Contrast([b.accuracy - u.accuracy for b, u in zip(*pair, strict=True)])
        yield columns(name, rate, *means, cost, Contrast([s.gain for s in behind[rate]]))


def main(given: Sequence[str]) -> None:
    """Measure drawn numbers and trained networks, and print three tables."""
    started = time.perf_counter()
    show(
        "variance without dropout / with it, of drawn numbers",
        ("dropping rate", "published", "ReLU(N(0, 1)), measured"),
        (columns(rate, f"{ratio:.3f}", f"{drawn_ratio(rate):.3f}") for rate, ratio in PUBLISHED.items()),
        left=0,
    )
    ratios: list[str] = []
    accuracies: list[str] = []
    for name, overrides in NETWORKS.items():
        behind, usual = (measured([*overrides, *given], behind=place) for place in (True, False))
        ratios += [*ratio_rows(name, "behind", behind), *ratio_rows(name, "usual", usual)]
        accuracies += accuracy_rows(name, behind, usual)
        print(f"{name} after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    show(
        f"variance in evaluation / in training, mean of {SEEDS} seeds (95 % interval)",
        ("network", "BatchNorm", "dropping rate", "layer", "closed form", "measured", "learnt"),
        ratios,
        left=4,
    )
    seconds = time.perf_counter() - started
    show(
        f"test accuracy, %; differences in points (95 % interval), p by Wilcoxon; {seconds:.0f} s",
        (
            "network",
            "dropping rate",
            "behind",
            "usual",
            "behind minus usual",
            "p",
            "gained behind by recalibrating",
            "p",
        ),
        accuracies,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
