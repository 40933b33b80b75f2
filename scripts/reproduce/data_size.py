"""`data_size.py [OVERRIDES]`: what dropout gains by the size of the training set, and what it does to activations.

Published (Srivastava et al. 2014, section 7): on MNIST no gain at 100 or 500 examples, a gain at 1,000 and above; and
hidden activations that are sparser, though nothing asks for that. Rates as published, 0.2 at the input and 0.5 at the
hidden layers, against none. The learning rate of each arm and size is chosen among three, by the validation loss of
two seeds; then ten other seeds are trained in pairs, the same in both arms, and see the test set once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from trainings import WEIGHT_DECAY, Contrast, Trainings, columns, rates, show

from dropsearch.analysis.measures import coadaptation
from dropsearch.core.records import TrialSpec
from dropsearch.core.seeds import confirmation_seeds, trial_seed
from dropsearch.stats.intervals import mean_interval

EPOCHS = {100: 150, 500: 80, 1000: 50, 5000: 25}
"""By the number of training examples: where validation loss has long turned, or at the largest stands still."""
VALIDATION = 1000
LEARNING_RATES = (3e-4, 1e-3, 3e-3)
TUNING_SEEDS = 2
SEEDS = 10
PUBLISHED_RATES = {"input": 0.2, "hidden": 0.5}
MEASURES = {
    "mean_activation": ("mean activation", 3),
    "active_share": ("share above a tenth of the largest", 3),
    "correlation": ("mean correlation of two units", 3),
    "knockout_area": ("accuracy kept as units are knocked out", 3),
}
"""Of `dropsearch.analysis.measures.coadaptation`: in words, and how many digits of each are told."""


@dataclass(frozen=True)
class Pairs:
    """What came of one size: by arm the learning rate, and a number a seed of each measure."""

    size: int
    learning_rate: dict[str, float]
    accuracy: dict[str, list[float]]
    measures: dict[str, list[Mapping[str, float]]]
    """By arm, for each seed, what `MEASURES` names."""


def overrides(size: int, given: Sequence[str]) -> list[str]:
    """Return the configuration of a size: the validation set is the same size for all."""
    return [
        "model=mlp",
        "model.hidden=[256,256]",
        "data=mnist",
        f"data.train_size={size}",
        f"data.val_fraction={VALIDATION / (VALIDATION + size):.6f}",
        "data.batch_size=50",
        f"trainer.max_epochs={EPOCHS[size]}",
        *given,
    ]


def specs(arm: str, sites: Sequence[str], lr: float, seeds: Sequence[int], first: int) -> list[TrialSpec]:
    """Return a trial for each seed, numbered from `first`."""
    found = rates(sites, PUBLISHED_RATES) if arm == "dropout" else {}
    return [TrialSpec(arm, first + i, seed, found, lr, WEIGHT_DECAY) for i, seed in enumerate(seeds)]


def tuned(trainings: Trainings, arms: Sequence[str]) -> dict[str, float]:
    """Return the learning rate of each arm with the least mean validation loss."""
    seeds = [trial_seed(0, index) for index in range(TUNING_SEEDS)]
    plan = [
        specs(arm, trainings.sites, lr, seeds, TUNING_SEEDS * place)
        for arm in arms
        for place, lr in enumerate(LEARNING_RATES)
    ]
    results = trainings.train([spec for group in plan for spec in group])
    losses: dict[tuple[str, float], list[float]] = {}
    for result in results:
        assert result.best is not None
        losses.setdefault((result.spec.arm, result.spec.lr), []).append(result.best.val_loss)
    return {arm: min(LEARNING_RATES, key=lambda lr: fmean(losses[arm, lr])) for arm in arms}


def compared(size: int, given: Sequence[str]) -> Pairs:
    """Tune and train both arms at one size."""
    arms = ("none", "dropout")
    trainings = Trainings(overrides(size, given), arms)
    lr = tuned(trainings, arms)
    plan = {arm: specs(arm, trainings.sites, lr[arm], confirmation_seeds(0, SEEDS), 100) for arm in arms}
    trainings.train([spec for arm in arms for spec in plan[arm]])
    return Pairs(
        size,
        lr,
        {arm: [trainings.test_accuracy(spec) for spec in plan[arm]] for arm in arms},
        {arm: [coadaptation.measure(trainings.trained(spec)).values for spec in plan[arm]] for arm in arms},
    )


def accuracy_row(pairs: Pairs) -> str:
    """Return a size's line of the first table."""
    arms = ("none", "dropout")
    means = [mean_interval(pairs.accuracy[arm]) for arm in arms]
    scores = [f"{m.mean:.2f} ({m.low:.2f} to {m.high:.2f})" for m in means]
    gains = [b - a for a, b in zip(*(pairs.accuracy[arm] for arm in arms), strict=True)]
    return columns(f"{pairs.size:,}", *scores, Contrast(gains), *(f"{pairs.learning_rate[arm]:g}" for arm in arms))


def measured_rows(pairs: Pairs) -> Iterator[str]:
    """Yield a size's lines of the second table, one a measure."""
    for name, (what, digits) in MEASURES.items():
        a, b = ([seed[name] for seed in pairs.measures[arm]] for arm in ("none", "dropout"))
        means = (f"{fmean(values):.{digits}f}" for values in (a, b))
        yield columns(f"{pairs.size:,}", what, *means, Contrast([y - x for x, y in zip(a, b, strict=True)], digits))


def main(given: Sequence[str]) -> None:
    """Train every size and print both tables."""
    started, every = time.perf_counter(), []
    for size in EPOCHS:
        every.append(compared(size, given))
        print(f"{accuracy_row(every[-1])} after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - started
    show(
        f"test accuracy, %, mean of {SEEDS} seeds (95 % interval), p by Wilcoxon; {seconds:.0f} s",
        ("examples", "none", "dropout", "dropout minus none", "p", "lr none", "lr dropout"),
        map(accuracy_row, every),
        left=0,
    )
    show(
        "hidden activations on test examples, with dropout off, mean of both layers",
        ("examples", "measure", "none", "dropout", "dropout minus none", "p"),
        (row for pairs in every for row in measured_rows(pairs)),
        left=2,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
