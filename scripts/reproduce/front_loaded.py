"""Dropout in the first layers: published losses, their best epochs, equal tuning, and a free search.

Published ("Dropout Universality", ICML 2026, arXiv 2605.21648): an MLP of six layers on 5,000 images of CIFAR-10 has a
lower test loss at its last epoch if the same amount of dropout lies in the first layers. Part a trains the published
arms and shows the last and the best epoch beside the published numbers. Part b tunes the rate of each shape of schedule
on validation images, with equal trials, and compares the shapes on other seeds, at the epoch that validation chooses.
Part c searches a rate a layer (space=per_layer) and shows whether the rates fall with depth. Further arguments are
overrides as on the command line, such as engine.processes=1.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from front_loaded_published import at_chosen, at_chosen_heads, draw, published_arms
from front_loaded_runs import (
    EPOCHS,
    LAYERS,
    LEARNING_RATE,
    SHAPES,
    SIZE,
    WEIGHT_DECAY,
    Rates,
    Runs,
    schedule,
    training_overrides,
)
from trainings import columns, show

from dropsearch.core.records import TrialResult
from dropsearch.core.seeds import confirmation_seeds

LEVELS = (0.1, 0.2, 0.3, 0.5)
"""The rates among which part b chooses, the same in each arm."""
NONE = schedule("constant", 0.0)
SHOWN_SHARE = 0.1
"""Share of the trials that count as the best in part c."""


def equal_tuning(runs: Runs, seeds: Sequence[int], tuning: int) -> None:
    """Choose each shape's rate on the first seeds, and compare the shapes on the others."""
    candidates = {shape: [schedule(shape, level) for level in LEVELS] for shape in SHAPES}
    runs.train((rates, seed) for each in candidates.values() for rates in each for seed in seeds[:tuning])

    def tuned(rates: Rates) -> float:
        return fmean(min(run.val_loss) for run in runs.train((rates, seed) for seed in seeds[:tuning]))

    chosen = {"none": NONE, **{shape: min(each, key=tuned) for shape, each in candidates.items()}}
    fresh = seeds[tuning:]
    runs.train((rates, seed) for seed in fresh for rates in chosen.values())
    found = {shape: runs.train((rates, seed) for seed in fresh) for shape, rates in chosen.items()}
    show(
        f"b: rate chosen among {', '.join(map(str, LEVELS))} on {tuning} seed(s), test images at the epoch with the "
        f"least validation loss, mean of {len(fresh)} other seeds ± standard error",
        ("arm", "rate", *at_chosen_heads("constant")),
        (columns(shape, max(chosen[shape]), *at_chosen(found[shape], found["constant"])) for shape in chosen),
    )


def free_search(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Search a rate a layer, and print the rates of the best trials by layer."""
    from dropsearch.config.command_line import with_user_targets
    from dropsearch.config.compose import compose_overrides
    from dropsearch.experiment.tasks.search import searched

    config = [
        *training_overrides(options.root, options.epochs, options.size),
        *("data.watch_test=false", "space=per_layer", "arms=[dropout]", f"study.n_trials={options.trials}"),
        *(f"space.lr.{end}={LEARNING_RATE}" for end in ("low", "high")),
        *(f"space.weight_decay.{end}={WEIGHT_DECAY}" for end in ("low", "high")),
        *("confirm.top_k=1", "confirm.seeds=1", "evidence=off", "tracking=none"),
        f"output_dir={options.output}/search-{options.size}-images-{options.epochs}-epochs",
    ]
    summary = searched(compose_overrides(with_user_targets([*config, *overrides])))
    trials = summary.arms["dropout"].trials
    complete = sorted((trial for trial in trials if trial.state == "COMPLETE"), key=val_loss)
    best = [list(trial.spec.rates.values()) for trial in complete[: math.ceil(SHOWN_SHARE * len(trials))]]
    rows = {f"mean of the best {len(best)}": [fmean(layer) for layer in zip(*best, strict=True)], "the best": best[0]}
    show(
        f"c: space=per_layer, {len(trials)} trials ({len(complete)} complete), rates and rank correlation with depth",
        ("trials", *(f"layer {number}" for number in range(1, LAYERS + 1)), "correlation"),
        (columns(name, *(f"{rate:.2f}" for rate in each), falling(each)) for name, each in rows.items()),
    )


def val_loss(trial: TrialResult) -> float:
    """Return the least validation loss of a trial."""
    return trial.best.val_loss if trial.best else math.inf


def falling(rates: Sequence[float]) -> str:
    """Return Spearman's correlation of rates with depth: -1 where they fall from layer to layer."""
    from scipy.stats import spearmanr

    return f"{spearmanr(range(len(rates)), rates)[0]:+.2f}" if len(set(rates)) > 1 else "all equal"


def arguments(given: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options and the overrides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="abc", help="which parts to run (abc)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each arm; the publication has 25 (5)")
    parser.add_argument("--tuning-seeds", type=int, default=1, help="how many of them choose the rates of part b (1)")
    parser.add_argument("--trials", type=int, default=40, help="trials of the search in part c (40)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"epochs of a training ({EPOCHS})")
    parser.add_argument("--size", type=int, default=SIZE, help=f"images of each set ({SIZE})")
    parser.add_argument("--together", type=int, default=6, help="trainings at once in parts a and b (6)")
    parser.add_argument(
        "--quick", action="store_true", help="2 seeds, 10 trials, 5 epochs, 500 images, no figure: does it run?"
    )
    parser.add_argument("--root", default="data", help="folder of fetched data sets (data)")
    parser.add_argument("--output", type=Path, default=Path("outputs/reproduce/front-loaded"))
    parser.add_argument("--figure", type=Path, help="where to draw the curves of part a")
    options, overrides = parser.parse_known_args(given)
    if options.quick:
        options.seeds, options.trials, options.epochs, options.size, options.figure = 2, 10, 5, 500, None
    if not 1 <= options.tuning_seeds < options.seeds and "b" in options.parts:
        parser.error("--tuning-seeds must be at least 1 and below --seeds, which compare the tuned rates")
    return options, overrides


def main(given: Sequence[str]) -> None:
    """Run the parts asked for."""
    options, overrides = arguments(given)
    if (options.epochs, options.size) != (EPOCHS, SIZE):
        print(f"{options.epochs} epochs on {options.size} images; published: {EPOCHS} epochs on {SIZE}\n", flush=True)
    runs = Runs(options.output, options.root, options.epochs, options.size, options.together, overrides)
    seeds = confirmation_seeds(0, options.seeds)
    if "a" in options.parts:
        published_arms(runs, seeds)
        if options.figure:
            draw(runs, seeds, options.figure)
    if "b" in options.parts:
        equal_tuning(runs, seeds, options.tuning_seeds)
    if "c" in options.parts:
        free_search(options, overrides)


if __name__ == "__main__":
    main(sys.argv[1:])
