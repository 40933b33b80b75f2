"""`sparsity.py [OVERRIDES]`: dropout makes an autoencoder's hidden activations sparse, though nothing asks for that.

Published (Srivastava et al. 2014, section 7.2): 256 rectified linear units, MNIST; the mean activation is close to 2.0
without dropout and around 0.7 with a rate of 0.5. Here, on 10,000 images, with ten paired seeds; activations are those
of the test images, with dropout off.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

import torch
from trainings import Contrast, Trainings, columns, show

from dropsearch.core.records import TrialSpec
from dropsearch.core.seeds import confirmation_seeds
from dropsearch.stats.intervals import mean_interval

SEEDS = 10
RATE = 0.5
LEARNING_RATE = 1e-3
OVERRIDES = ("model._target_=autoencoder.Autoencoder", "data._target_=autoencoder.Pixels", "trainer.max_epochs=20")
WHAT = {
    "mean activation": 3,
    "units above 0, %": 1,
    "units above a tenth of the greatest, %": 1,
    "loss, nats a pixel": 4,
}
"""What is measured, and how many digits of it are told."""


@torch.no_grad()
def measures(module: torch.nn.Module, x: torch.Tensor) -> tuple[float, ...]:
    """Return what `WHAT` names, for the images `x` [images, 784]."""
    hidden = module.hidden(x)  # type: ignore[operator]
    shares = [100 * float((hidden > least).float().mean()) for least in (0, hidden.max() / 10)]
    return float(hidden.mean()), *shares, float(module.training_step((x,), 0))  # type: ignore[operator]


def main(given: Sequence[str]) -> None:
    """Train all pairs and print the table."""
    started = time.perf_counter()
    trainings = Trainings([*OVERRIDES, *given], ["none", "dropout"])
    plan = {
        arm: [
            TrialSpec(arm, i, seed, dict.fromkeys(trainings.sites, rate), LEARNING_RATE, 0.0)
            for i, seed in enumerate(confirmation_seeds(0, SEEDS))
        ]
        for arm, rate in {"none": 0.0, "dropout": RATE}.items()
    }
    trainings.train([spec for specs in plan.values() for spec in specs])
    test = trainings.source.module.test
    off, on = ([measures(trainings.model(spec), test) for spec in plan[arm]] for arm in ("none", "dropout"))
    seconds = time.perf_counter() - started
    show(
        f"on the test images, mean of {SEEDS} seeds (95 % interval), p by Wilcoxon; {seconds:.0f} s",
        ("measure", "none", "dropout", "dropout minus none", "p"),
        rows(off, on),
    )
    ratio = mean_interval([b[0] / a[0] for a, b in zip(off, on, strict=True)])
    print(
        f"mean activation, dropout through none: {ratio.mean:.2f} ({ratio.low:.2f} to {ratio.high:.2f}), published 0.35"
    )


def rows(off: Sequence[Sequence[float]], on: Sequence[Sequence[float]]) -> Iterator[str]:
    """Yield a line for each measure, of both arms [seeds][measures]."""
    for place, (what, digits) in enumerate(WHAT.items()):
        a, b = ([seed[place] for seed in arm] for arm in (off, on))
        means = [f"{m.mean:.{digits}f} ({m.low:.{digits}f} to {m.high:.{digits}f})" for m in map(mean_interval, (a, b))]
        yield columns(what, *means, Contrast([y - x for x, y in zip(a, b, strict=True)], digits))


if __name__ == "__main__":
    main(sys.argv[1:])
