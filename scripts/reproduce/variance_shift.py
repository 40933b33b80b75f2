"""`variance_shift.py [OVERRIDES]`: what dropout does to the variance that a BatchNorm behind it has learnt.

Published (Li et al. 2019): a BatchNorm right behind a dropout that keeps a share q of activations with mean c and
variance v sees, in evaluation, v / ((c^2 + v)/q - c^2) times the variance of training. For ReLU(N(0, 1)) that is 0.860,
0.732, 0.614 and 0.405 at dropping rates of 0.1, 0.2, 0.3 and 0.5. Measured on such numbers and on trained networks,
with each BatchNorm right behind a dropout (model.dropout_before_norm=true) and in its usual place, in front of the
activation. A layer's ratio is that of the summed variances of its units.
"""

from __future__ import annotations

import copy
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

from dropsearch.evidence import mean_interval
from dropsearch.records import TrialSpec
from dropsearch.seeds import confirmation_seeds

PUBLISHED = {0.1: 0.860, 0.2: 0.732, 0.3: 0.614, 0.5: 0.405}
"""Ratio by dropping rate, for ReLU(N(0, 1))."""
SEEDS = 8
LEARNING_RATE = 1e-3
PASSES = 8
"""How often the training set is passed through with dropout on: masks are drawn anew each time."""
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

Variances = dict[str, tuple[Tensor, Tensor]]
"""By layer: the mean and the variance of each unit, each [units]."""


@dataclass(frozen=True)
class Shift:
    """What one trained network shows."""

    ratios: dict[str, float]
    """By BatchNorm layer, variance in evaluation through variance in training."""
    expected: dict[str, float]
    """The closed form, for the layers that stand right behind a dropout."""
    ratios_recalibrated: dict[str, float]
    """The ratios where all BatchNorms have had their statistics measured again, with dropout off."""
    accuracy: float
    accuracy_recalibrated: float
    """Test accuracy, %."""


def drawn_ratio(rate: float) -> float:
    """Return the ratio measured on ReLU(N(0, 1)) that a dropout drops."""
    numbers = torch.randn(4_000_000, generator=torch.Generator().manual_seed(0)).relu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return float(numbers.var() / F.dropout(numbers, rate).var())


def closed_form(mean: Tensor, variance: Tensor, rate: float) -> float:
    """Return the expected ratio of a layer with these moments [units] in front of its dropout."""
    trained = (mean**2 + variance) / (1 - rate) - mean**2
    return float(variance.sum() / trained.sum())


def norms(net: nn.Module) -> dict[str, nn.Module]:
    """Return the BatchNorm layers by name, in the order of a forward pass."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    return {name: module for name, module in net.named_modules() if isinstance(module, kinds)}


@torch.no_grad()
def moments(net: nn.Module, batches: Any, passes: int) -> Variances:
    """Return mean and variance of what goes into each BatchNorm, over `passes` through the batches."""
    sums: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            units = inputs[0].transpose(0, 1).flatten(1).double()
            count = torch.tensor(units.shape[1], dtype=torch.float64)
            found = sums.setdefault(name, [torch.zeros(()), torch.zeros(()), torch.zeros(())])
            for total, part in zip(found, (count, units.sum(1), (units**2).sum(1)), strict=True):
                total.data = total.data + part

        return hook

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in norms(net).items()]
    for _ in range(passes):
        for x, _ in batches:
            net(x)
    for hook in hooks:
        hook.remove()
    return {
        name: (total / count, squares / count - (total / count) ** 2) for name, (count, total, squares) in sums.items()
    }


@torch.no_grad()
def recalibrated(net: nn.Module, batches: Any) -> nn.Module:
    """Return a copy whose BatchNorm statistics are those of the training set with dropout off."""
    again = copy.deepcopy(net).eval()
    for module in norms(again).values():
        module.reset_running_stats()  # type: ignore[operator]
        module.momentum = None  # type: ignore[assignment]
        module.train()
    for x, _ in batches:
        again(x)
    return again.eval()


@torch.no_grad()
def accuracy(net: nn.Module, batches: Any) -> float:
    """Return the share of examples that a network gets right, %."""
    right = [(net(x).argmax(1) == y).double() for x, y in batches]
    return 100 * float(torch.cat(right).mean())


def shift(trainings: Trainings, spec: TrialSpec, rate: float, *, behind: bool) -> Shift:
    """Measure one trained network; `behind` says whether its BatchNorms stand right behind the dropouts."""
    net = trainings.model(spec).net
    train, test = trainings.source.train_loader(spec.seed), trainings.source.test_dataloader()
    again = recalibrated(net, train)
    off = moments(net, train, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        on = moments(copy.deepcopy(net).train(), train, PASSES)
    expected = {name: closed_form(*off[name], rate) for name in off} if behind else {}
    return Shift(
        ratios(off, on), expected, ratios(moments(again, train, 1), on), accuracy(net, test), accuracy(again, test)
    )


def ratios(off: Variances, on: Variances) -> dict[str, float]:
    """Return, by layer, the summed variance with dropout off through that with dropout on."""
    return {name: float(off[name][1].sum() / on[name][1].sum()) for name in off}


def measured(overrides: Sequence[str], *, behind: bool) -> dict[float, list[Shift]]:
    """Train a network at each rate on all seeds, and return what they show, by rate."""
    trainings = Trainings([*overrides, f"model.dropout_before_norm={behind}", "model.input_dropout=false"], ["both"])
    plan = {
        rate: [
            TrialSpec("both", 100 * place + i, seed, dict.fromkeys(trainings.sites, rate), LEARNING_RATE, WEIGHT_DECAY)
            for i, seed in enumerate(confirmation_seeds(0, SEEDS))
        ]
        for place, rate in enumerate(PUBLISHED)
    }
    trainings.train([spec for specs in plan.values() for spec in specs])
    return {rate: [shift(trainings, spec, rate, behind=behind) for spec in specs] for rate, specs in plan.items()}


def ratio_rows(name: str, place: str, by_rate: dict[float, list[Shift]]) -> Iterator[str]:
    """Yield a line for each rate and layer: the ratio, and the closed form where it applies."""
    for rate, shifts in by_rate.items():
        for layer in shifts[0].ratios:
            found = [mean_interval([s.ratios[layer] for s in shifts])]
            found += [mean_interval([s.ratios_recalibrated[layer] for s in shifts])]
            cells = [f"{f.mean:.3f} ({f.low:.3f} to {f.high:.3f})" for f in found]
            expected = f"{fmean(s.expected[layer] for s in shifts):.3f}" if shifts[0].expected else ""
            yield columns(name, place, rate, layer.removesuffix(".norm"), expected, *cells)


def accuracy_rows(name: str, behind: dict[float, list[Shift]], usual: dict[float, list[Shift]]) -> Iterator[str]:
    """Yield a line for each rate: accuracies of both places, their difference, and what recalibrating gives."""
    for rate in behind:
        pair = behind[rate], usual[rate]
        means = (f"{fmean(s.accuracy for s in shifts):.2f}" for shifts in pair)
        cost = Contrast([b.accuracy - u.accuracy for b, u in zip(*pair, strict=True)])
        gain = Contrast([s.accuracy_recalibrated - s.accuracy for s in behind[rate]])
        yield columns(name, rate, *means, cost, gain)


def main(given: Sequence[str]) -> None:
    """Measure drawn numbers and trained networks, and print three tables."""
    started = time.perf_counter()
    show(
        "variance without dropout / with it, of drawn numbers",
        ("dropping rate", "published", "ReLU(N(0, 1)), measured"),
        (columns(rate, f"{ratio:.3f}", f"{drawn_ratio(rate):.3f}") for rate, ratio in PUBLISHED.items()),
        left=0,
    )
    shifts: list[str] = []
    accuracies: list[str] = []
    for name, overrides in NETWORKS.items():
        behind, usual = (measured([*overrides, *given], behind=place) for place in (True, False))
        shifts += [*ratio_rows(name, "behind", behind), *ratio_rows(name, "usual", usual)]
        accuracies += accuracy_rows(name, behind, usual)
        print(f"{name} after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    show(
        f"variance in evaluation / in training, mean of {SEEDS} seeds (95 % interval)",
        ("network", "BatchNorm", "dropping rate", "layer", "closed form", "measured", "recalibrated"),
        shifts,
        left=4,
    )
    seconds = time.perf_counter() - started
    show(
        f"test accuracy, %; differences in points (95 % interval), p by Wilcoxon; {seconds:.0f} s",
        ("network", "dropping rate", "behind", "usual", "behind minus usual", "p", "behind, recalibrated", "p"),
        accuracies,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
