"""Part a of `front_loaded.py`: the published arms at their last and best epochs, beside the published numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from front_loaded_runs import Run, Runs, schedule
from matplotlib.lines import Line2D
from trainings import columns, show

from dropsearch.report.figures.axes import label_outer
from dropsearch.report.figures.layout import drawing, figure_layout
from dropsearch.report.figures.palette import ARM_STYLES

ARMS = {
    "none": ("constant", 0.0),
    "constant .1": ("constant", 0.1),
    "late half .2": ("late half", 0.2),
    "early half .2": ("early half", 0.2),
    "first third .3": ("first third", 0.3),
    "constant .2": ("constant", 0.2),
}
"""The published arms: shape and rate."""
BASE = "constant .1"
"""What the others are compared with: early and late half and first third drop as much, all layers together."""
PUBLISHED = {
    "none": (3.959, 1.803, 38.3, 38.8),
    "constant .1": (2.223, 1.677, 41.8, 42.5),
    "late half .2": (3.661, 1.732, 39.6, 40.6),
    "early half .2": (1.826, 1.654, 42.7, 43.1),
    "first third .3": (1.721, 1.643, 42.9, 43.3),
    "constant .2": (1.682, 1.666, 41.2, 41.5),
}
"""Means of 25 seeds: test loss of the last and the best epoch, nats; accuracy of the same, %."""
MEASURES = (
    ("loss, last epoch", 3, lambda run: run.test_loss[-1]),
    ("loss, best epoch", 3, lambda run: min(run.test_loss)),
    ("accuracy, last epoch, %", 1, lambda run: 100 * run.test_acc[-1]),
    ("accuracy, best epoch, %", 1, lambda run: 100 * max(run.test_acc)),
)
"""Of part a: name, digits, value. As published, the test images choose the best epoch of each run and measure."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its standard error, which one seed does not have."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        """The mean."""
        return fmean(self.values)

    @property
    def error(self) -> float:
        """The standard error, NaN of a single value."""
        return stdev(self.values) / math.sqrt(len(self.values)) if len(self.values) > 1 else math.nan

    def text(self, digits: int, sign: str = "") -> str:
        """Return mean ± standard error."""
        error = "" if math.isnan(self.error) else f" ± {self.error:.{digits}f}"
        return f"{self.mean:{sign}.{digits}f}{error}"


def published_arms(runs: Runs, seeds: Sequence[int]) -> None:
    """Train the published arms on all seeds, and print them beside the published numbers."""
    wanted = {arm: schedule(*shape) for arm, shape in ARMS.items()}
    for seed in seeds:  # seed by seed: all arms of a seed train together, and a stopped script has whole seeds
        runs.train((rates, seed) for rates in wanted.values())
    found = {arm: runs.train((rates, seed) for seed in seeds) for arm, rates in wanted.items()}
    show(
        f"a: on the test images, mean of {len(seeds)} seeds ± standard error (published mean of 25; distance in these "
        "standard errors)",
        ("arm", *(name for name, _, _ in MEASURES)),
        (columns(arm, *beside_published(arm, of_arm)) for arm, of_arm in found.items()),
    )
    if len(seeds) > 1:
        print(f"within 2 standard errors: {', '.join(within(found))}\n", flush=True)
    show(
        f"a: the same trainings, on the test images at the epoch with the least validation loss, {len(seeds)} seeds",
        ("arm", *at_chosen_heads(BASE)),
        (columns(arm, *at_chosen(of_arm, found[BASE])) for arm, of_arm in found.items()),
    )


def distances(arm: str, runs: Sequence[Run]) -> list[float]:
    """Return how far each measure lies from the published mean, in standard errors of the mean of these runs."""
    means = [Mean([value(run) for run in runs]) for _, _, value in MEASURES]
    return [(m.mean - given) / m.error for m, given in zip(means, PUBLISHED[arm], strict=True)]


def beside_published(arm: str, runs: Sequence[Run]) -> Iterator[str]:
    """Yield the cells of an arm."""
    for (_, digits, value), given, far in zip(MEASURES, PUBLISHED[arm], distances(arm, runs), strict=True):
        away = "" if math.isnan(far) else f"; {far:+.1f}"
        yield f"{Mean([value(run) for run in runs]).text(digits)} ({given:.{digits}f}{away})"


def within(found: dict[str, list[Run]]) -> Iterator[str]:
    """Yield for each measure in how many arms it lies within two standard errors of the published mean."""
    for place, (name, _, _) in enumerate(MEASURES):
        near = [arm for arm, runs in found.items() if abs(distances(arm, runs)[place]) <= 2]
        yield f"{name} in {len(near)} of {len(found)} arms"


def at_chosen_heads(base: str) -> tuple[str, ...]:
    """Return the heads of test images at the epoch that validation chooses, beside an arm that differences are from."""
    return "epoch", "test loss", f"minus {base}", "test accuracy, %", f"minus {base}"


def at_chosen(runs: Sequence[Run], constant: Sequence[Run]) -> Iterator[str]:
    """Yield the cells of an arm under `at_chosen_heads`; differences are paired by seed."""
    losses, base_losses = ([run.test_loss[run.chosen] for run in arm] for arm in (runs, constant))
    shares, base_shares = ([100 * run.test_acc[run.chosen] for run in arm] for arm in (runs, constant))
    yield f"{fmean(run.chosen + 1 for run in runs):.0f}"
    for own, base, digits in ((losses, base_losses, 3), (shares, base_shares, 1)):
        yield Mean(own).text(digits)
        differences = [a - b for a, b in zip(own, base, strict=True)]
        yield "" if runs is constant else Mean(differences).text(digits, "+")


def draw(runs: Runs, seeds: Sequence[int], path: Path) -> None:
    """Draw the test loss of the published arms by epoch."""
    styles = dict(zip(ARMS, ARM_STYLES.values(), strict=True))
    lines = [Line2D([], [], color=drawn.colour, linestyle=drawn.line, label=arm) for arm, drawn in styles.items()]
    caption = (
        f"Mean of {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}, dropout off. The markers are the epochs with "
        "the least loss; the publication compares last epochs."
    )
    with drawing():
        drawn = figure_layout(
            "Test loss by epoch: CIFAR-10, 5,000 images, MLP 6 x 256", caption, 1, lines, panel_height=3
        )
        panel = drawn.panels[0]
        for arm, style in styles.items():
            found = runs.train((schedule(*ARMS[arm]), seed) for seed in seeds)
            losses = [fmean(each) for each in zip(*(run.test_loss for run in found), strict=True)]
            least = min(range(len(losses)), key=losses.__getitem__)
            panel.plot(range(1, len(losses) + 1), losses, style.line, color=style.colour)
            panel.plot([least + 1], [losses[least]], style.marker, color=style.colour)
        label_outer(drawn, "epoch", "test loss, nats")
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(path)
