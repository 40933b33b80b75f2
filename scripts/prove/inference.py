"""Prove the statistics on simulated data, whose truth is known, and print a table; nothing is written.

    python scripts/prove/inference.py [--experiments 1000] [--seed 0] [--parts family_wise_errors crossed ...]

It takes about five minutes on an idle core. What the parts mean is in docs/statistics.md, which holds the table of one
run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.stats import simulations as simulated  # the checkout's tests


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--experiments", type=int, default=1000)
    given.add_argument("--seed", type=int, default=0)
    parts = {
        part.__name__: part
        for part in (
            family_wise_errors,
            crossed,
            coverages,
            confirmations,
            looks,
            draws,
            powers,
            budgets,
            repetitions,
            curves,
        )
    }
    given.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="which tables; all by default")
    wanted = given.parse_args()
    started, generator = time.monotonic(), np.random.default_rng(wanted.seed)
    for part in wanted.parts:
        for row in parts[part](wanted.experiments, generator):
            print("| " + " | ".join(row) + " |", flush=True)
        print(flush=True)
    print(f"{wanted.experiments} experiments (seed {wanted.seed}), {time.monotonic() - started:.0f} s")


def family_wise_errors(experiments: int, generator: np.random.Generator) -> Iterator[Sequence[str]]:
    yield from _head("family-wise error under the null, %", "contrasts", "5 seeds", "10 seeds", "20 seeds")
    for arms, contrasts in ((simulated.FOUR_ARMS, 6), (simulated.ALL_ARMS, 15)):
        errors = [simulated.family_wise_error(experiments, n, arms, generator) for n in (5, 10, 20)]
        yield f"{len(arms)} arms", str(contrasts), *(f"{100 * error:.1f}" for error in errors)


def crossed(experiments: int, generator: np.random.Generator) -> Iterator[Sequence[str]]:
    yield from _head(
        "seeds and 360 test examples, %",
        "shown, by seeds",
        "shown, by both",
        "covered, by seeds",
        "covered, by both",
        "covered, as reported",
    )
    for luck in simulated.LUCK:
        for seeds in (10, 20):
            alone, both = simulated.crossed_family_wise_errors(luck, experiments, seeds, generator)
            of_both, of_seeds, reported = simulated.crossed_coverage(luck, experiments, seeds, generator)
            shares = (alone, both, of_seeds, of_both, reported)
            yield f"{luck}, {seeds} seeds", *(f"{100 * share:.1f}" for share in shares)


def draws(experiments: int, generator: np.random.Generator) -> Iterator[Sequence[str]]:
    count = 10 * experiments
    over_seeds = simulated.intervals_that_leave_the_data(count, generator)
    over_both = simulated.crossed_intervals_that_leave_the_data(count, generator)
    yield from _head("intervals that leave the data or contradict p", "over seeds", "over seeds and examples")
    yield f"of {count:,} draws with ties, zeros and skew", str(over_seeds), str(over_both)


def coverages(experiments: int, generator: np.random.Generator) -> Iterator[Sequence[str]]:
    yield from _head("coverage of 95 % intervals, %", "7 seeds", "10 seeds", "20 seeds")
    for name in simulated.DIFFERENCES:
        covered = [simulated.interval_coverage(name, 4 * experiments, n, generator) for n in (7, 10, 20)]
        yield name, *(f"{100 * share:.1f}" for share in covered)


def confirmations(experiments: int, generator: np.random.Generator) -> Iterator[Sequence[str]]:
    columns = ("seeds that choose", "wrongly shown, %", "coverage, %", "winner worse by")
    yield from _head("spread of configurations", *columns)
    for spread in (0.0, 0.5, 1.0, 2.0):
        for screening in (4, 10):
            wrong, covered, regret = simulated.confirmation(spread, screening, experiments, generator)
            shown = f"{100 * wrong:.1f}" if spread == 0 else ""
            yield f"{spread:g}", str(screening), shown, f"{100 * covered:.1f}", f"{regret:.3f}"


def looks(experiments: int, generator: np.random.Generator) -> Iterator[Sequence[str]]:
    yield from _head("family-wise error under the null, %", "10 seeds", "10, then 20", "10, then 20, at 2.5 % each")
    yield "4 arms", *(f"{100 * share:.1f}" for share in simulated.two_looks(2 * experiments, generator))


def powers(experiments: int, generator: np.random.Generator) -> Iterator[Sequence[str]]:
    yield from _head("power, %: effect in sd of the differences", "5 seeds", "7 seeds", "10 seeds", "20 seeds")
    for contrasts in (1, 6):
        for effect in (0.5, 1.0, 1.5, 2.0):
            found = [simulated.power(effect, n, contrasts, 4 * experiments, generator) for n in (5, 7, 10, 20)]
            family = "one contrast" if contrasts == 1 else f"one of {contrasts}, no other shown"
            yield f"{effect}, {family}", *(f"{100 * share:.0f}" for share in found)


def budgets(experiments: int, generator: np.random.Generator) -> Iterator[Sequence[str]]:
    asked = {10: (1, 2, 5, 10), 30: (1, 5, 15, 30), 50: (1, 10, 25, 50)}
    yield from _head(
        "coverage of the best of k of n trials, %", *(f"{k} of {n}" for n, ks in asked.items() for k in ks)
    )
    for name in simulated.SCORES:
        found = {n: simulated.budget_coverage(name, n, max(experiments // 2, 20), generator) for n in asked}
        yield name, *(f"{100 * found[n][k]:.1f}" for n, ks in asked.items() for k in ks)


def repetitions(experiments: int, generator: np.random.Generator) -> Iterator[Sequence[str]]:
    asked = {2: (1, 10, 30), 3: (1, 10, 30), 5: (1, 10, 30), 10: (1, 10, 30)}
    yield from _head(
        "coverage of the best so far of 30 trials, %", *(f"{r} x {k}" for r, ks in asked.items() for k in ks)
    )
    for name in simulated.SCORES:
        found = {r: simulated.repeats_coverage(name, 30, r, max(experiments // 5, 20), generator) for r in asked}
        yield name, *(f"{100 * found[r][k]:.0f}" for r, ks in asked.items() for k in ks)


def curves(experiments: int, generator: np.random.Generator) -> Iterator[Sequence[str]]:
    cases = [(trials, sites, noise) for trials in (15, 30, 100) for sites in (3, 10) for noise in (0.02, 0.1)]
    yield from _head("coverage of response curves, %", *(f"{n} / {s} / {noise}" for n, s, noise in cases))
    for name in simulated.SURFACES:
        count = max(experiments // 5, 20)
        covered = [simulated.response_coverage(name, *case, count, generator)[0] for case in cases]
        yield name, *(f"{100 * share:.0f}" for share in covered)


def _head(title: str, *columns: str) -> Iterator[Sequence[str]]:
    yield title, *columns
    yield ":--", *(["--:"] * len(columns))


if __name__ == "__main__":
    main()
