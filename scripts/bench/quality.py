"""Time until a confirmed configuration is as good as the one that plain Optuna + Lightning + MLflow finds.

python scripts/bench/quality.py [--workloads NAME ...] [--repetitions 5] [--trials 100] [--one-thread] [--quick]
    [--warm-start [OVERRIDE ...]] [-- OVERRIDES ...]

Plain is plain.py with Optuna's TPE and no pruner (`--pruned-peer` gives it Optuna's median pruner), ours is the search
of one arm with dropsearch's default sampler and pruner, tracked in MLflow: the same model, data, split, ranges, epochs
and number of trials; each repetition has another seed.

A configuration's quality is its mean validation loss after retraining on three fresh seeds, which are the same for both
sides and all repetitions; of a built-in data set each seed also draws the split. The target is the median over
repetitions of the quality of what plain ends with. A side reaches it when the configuration with the best validation
loss so far has a quality at most the target. Ours pays for the retraining that confirms this; plain's time is that of
all its trials, and beside it that until it reaches the target for the first time, without confirmation. Start-up
(imports, data, plan, databases) is left out, and included in the last column.

With --top-k 3, ours is what a run of dropsearch does: it retrains the three configurations with the best validation
losses so far on four further seeds, takes the best of them, and pays for all twelve retrainings. Whether the target is
reached is judged on the three seeds of the target, as before.

Seconds are wall seconds, and processor seconds of each side's processes. With --one-thread both sides have one process
that trains with one thread, and ratios are those of processor seconds: for a machine that does other work. Otherwise
each side uses the cores as it does by default, and ratios are those of wall seconds.

Overrides reach ours alone, such as `-- engine=vectorized engine.width=10`: on a machine that does other work the speed
by which dropsearch chooses how to train is a guess.

--warm-start starts each search of ours from an earlier one with another seed, which differs by the overrides given
here, such as `--warm-start data.train_size=500`; its time does not count. The same command without it measures the
search that has no earlier one.

--folder keeps what each side measured: the same command then goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from given_trials import SpecFeed
from processor_seconds import cpu_seconds
from section import median_and_range
from workloads import MORE_WORKLOADS, WORKLOADS, words

from dropsearch.config.compose import compose_overrides
from dropsearch.core.records import TrialSpec
from dropsearch.core.seeds import confirmation_seeds
from dropsearch.experiment import engines
from dropsearch.experiment.context import build_context

HERE = Path(__file__).parent
CHOSEN = ("digits-mlp", "mnist1d-mlp", "fashion-mlp", "user-module")
FRESH = 3
"""Number of seeds on which a configuration is retrained."""
SCREENED = 4
"""Number of further seeds on which several configurations are compared first."""
OURS = ("pruner=median",)
ONE = ("engine.processes=1",)
EARLIER_SEED = 1000
"""Added to the seed of a search, that of the earlier one it starts from."""
COLUMNS = (
    "workload",
    "seconds",
    "target",
    "plain, all trials",
    "plain, to the target",
    "ours, to the target and confirmed",
    "reached",
    "plain / ours (range)",
    "against plain's first time",
    "with start-up",
)

Trial = Mapping[str, Any]
"""What a side noted of a trial: "wall", "cpu", "loss", "rates", "lr", "weight_decay"."""


@dataclass(frozen=True)
class Retrained:
    """The quality of a configuration, and what its retrainings took."""

    loss: float
    wall: float
    cpu: float


class Retraining:
    """Retrains configurations on fresh seeds, by dropsearch, the same for both sides.

    Args:
        name: The workload.
        more: Further overrides.
        seeds: The seeds.
    """

    def __init__(self, name: str, *more: str, seeds: Sequence[int]) -> None:
        self._seeds = seeds
        self._folder = tempfile.mkdtemp()
        config = compose_overrides(words(name, self._folder, "tracking=none", *ONE, *more))
        self._context = build_context(config)
        self._engine = engines.engine(self._context, engines.plan(self._context), lambda _: None)
        self._sites = [site.name for site in self._context.sites if site.controllable]
        self._known: dict[tuple[Any, ...], Retrained] = {}

    def __call__(self, trial: Trial) -> Retrained:
        """Return the quality of a trial's configuration."""
        key = (*trial["rates"], trial["lr"], trial["weight_decay"])
        if key not in self._known:
            self._known[key] = self._retrained(trial)
        return self._known[key]

    def _retrained(self, trial: Trial) -> Retrained:
        rates = dict(zip(self._sites, trial["rates"], strict=True))
        arm = self._context.config.arms[0]
        feed = SpecFeed(
            [
                TrialSpec(arm, number, seed, rates, trial["lr"], trial["weight_decay"], phase="confirm")
                for number, seed in enumerate(self._seeds)
            ]
        )
        began, cpu = time.perf_counter(), cpu_seconds()
        self._engine.run(feed)
        losses = [result.best.objective if result.best else math.inf for result in feed.ended]
        return Retrained(statistics.mean(losses), time.perf_counter() - began, cpu_seconds() - cpu)


def best_so_far(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that were the best one when they ended."""
    found: list[Trial] = []
    for trial in trials:
        if trial["loss"] is not None and (not found or trial["loss"] < found[-1]["loss"]):
            found.append(trial)
    return found


def seconds_to(
    target: float, trials: Sequence[Trial], retrain: Callable[[Trial], Retrained], what: str, *, confirmed: bool
) -> float:
    """Return the seconds until a side reaches the target, infinite if it never does.

    Args:
        target: The validation loss.
        trials: The side's trials in the order in which they ended.
        retrain: Returns the quality of a trial's configuration.
        what: "wall" or "cpu".
        confirmed: Whether the retrainings of the configuration count.
    """
    for trial in best_so_far(trials):
        found = retrain(trial)
        if found.loss <= target:
            return trial[what] + (getattr(found, what) if confirmed else 0.0)
    return math.inf


def seconds_with_screening(
    target: float,
    trials: Sequence[Trial],
    retrain: Callable[[Trial], Retrained],
    screen: Callable[[Trial], Retrained],
    what: str,
    top_k: int,
) -> float:
    """Return the seconds until the best of several screened configurations reaches the target.

    Args:
        target: The validation loss.
        trials: The side's trials in the order in which they ended.
        retrain: Returns the quality of a trial's configuration.
        screen: Returns what configurations are compared by, which is paid for.
        what: "wall" or "cpu".
        top_k: How many configurations are compared.
    """
    best: list[Trial] = []
    for trial in trials:
        if trial["loss"] is None:
            continue
        ranked = sorted([*best, trial], key=lambda each: each["loss"])[:top_k]
        if ranked == best:
            continue
        best = ranked
        screened = [screen(each) for each in best]
        chosen = min(zip(screened, best, strict=True), key=lambda pair: pair[0].loss)[1]
        if retrain(chosen).loss <= target:
            return trial[what] + sum(getattr(each, what) for each in screened)
    return math.inf


def row(
    name: str,
    runs: Sequence[Mapping[str, Any]],
    retrain: Callable[[Trial], Retrained],
    what: str,
    screen: Callable[[Trial], Retrained] | None = None,
    top_k: int = 1,
) -> list[str]:
    """Return the table's cells for one kind of seconds, of runs with the keys "plain" and "ours"."""
    whole, startup = ("run", "startup") if what == "wall" else ("cpu", "startup_cpu")
    target = statistics.median(retrain(best_so_far(run["plain"]["ended"])[-1]).loss for run in runs)
    plain = [run["plain"][whole] for run in runs]
    first = [seconds_to(target, run["plain"]["ended"], retrain, what, confirmed=False) for run in runs]
    if screen is None:
        ours = [seconds_to(target, run["ours"]["ended"], retrain, what, confirmed=True) for run in runs]
    else:
        ours = [seconds_with_screening(target, run["ours"]["ended"], retrain, screen, what, top_k) for run in runs]
    started = [
        (run["plain"][startup] + all_trials) / (run["ours"][startup] + own)
        for run, all_trials, own in zip(runs, plain, ours, strict=True)
    ]
    # A side that does not reach the target takes forever: a ratio of 0, or of infinity if that side is plain.
    against = [a / b if math.isfinite(b) else 0.0 for a, b in zip(first, ours, strict=True)]
    return [
        name,
        what,
        f"{target:.4f}",
        median_and_range(plain, ".1f"),
        median_and_range(first, ".1f"),
        median_and_range(ours, ".2f"),
        f"{sum(map(math.isfinite, ours))} of {len(runs)}",
        median_and_range([a / b for a, b in zip(plain, ours, strict=True)], ".1f"),
        median_and_range(against, ".1f"),
        median_and_range(started, ".1f"),
    ]


def side(script: str, name: str, kept: Path, *more: str, output: Path | None = None) -> Mapping[str, Any]:
    """Return what a side printed last, from a file if it has run before.

    Args:
        script: The side.
        name: The workload.
        kept: The file.
        more: Overrides.
        output: The folder of the search; a temporary one by default.
    """
    if kept.is_file():
        return json.loads(kept.read_text())
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE / script), name, str(output or folder), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        sys.exit(done.stderr)
    if "did not take" in done.stderr:
        sys.exit(f"{script}: a search that is not tracked is no measurement: {done.stderr.splitlines()[-1]}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(done.stdout.strip().splitlines()[-1])
    return json.loads(kept.read_text())


def our_side(name: str, chosen: argparse.Namespace, folder: Path, seed: int, *given: str) -> Mapping[str, Any]:
    """Return what a search of ours measured, which may start from an earlier one."""
    own = [*given, *OURS, *(ONE if chosen.one_thread else ()), *chosen.overrides]
    if chosen.warm_start is None:
        return side("ours.py", name, folder / f"{name}-ours-{seed}.json", *own, f"seed={seed}")
    kind = re.sub(r"[^\w.]+", "-", "-".join(["earlier", *chosen.warm_start]))
    before = (folder / f"{name}-{kind}-{seed}").absolute()
    other = [f"seed={seed + EARLIER_SEED}", "study.name=earlier", *chosen.warm_start]
    side("ours.py", name, before / "measured.json", *own, *other, output=before)
    warm = [f"seed={seed}", f"study.warm_start={before}"]
    return side("ours.py", name, folder / f"{name}-ours-after-{kind}-{seed}.json", *own, *warm)


def measured(name: str, chosen: argparse.Namespace, folder: Path) -> list[list[str]]:
    """Measure a workload and return the rows of its table."""
    shared = [f"study.n_trials={chosen.trials}", "sampler=tpe"]
    quick = ["trainer.max_epochs=1"] if chosen.quick else []
    runs = []
    for seed in range(chosen.repetitions):
        given = [*shared, *quick, f"seed={seed}"]
        peer = ["pruner=median"] if chosen.pruned_peer else []
        ours = our_side(name, chosen, folder, seed, *shared, *quick)
        plain = side("plain.py", name, folder / f"{name}-plain-{seed}.json", *given, *peer)
        runs.append({"ours": ours, "plain": plain})
    seeds = confirmation_seeds(0, FRESH + SCREENED)
    retrain = Retraining(name, *quick, *chosen.overrides, seeds=seeds[:FRESH])
    screen = Retraining(name, *quick, *chosen.overrides, seeds=seeds[FRESH:]) if chosen.top_k > 1 else None
    kinds = ("cpu", "wall") if chosen.one_thread else ("wall", "cpu")
    return [row(name, runs, retrain, what, screen, chosen.top_k) for what in kinds]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=CHOSEN, choices=[*WORKLOADS, *MORE_WORKLOADS])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--one-thread", action="store_true", help="one process and thread a side; processor seconds")
    parser.add_argument("--pruned-peer", action="store_true", help="plain with Optuna's median pruner")
    parser.add_argument("--warm-start", nargs="*", metavar="OVERRIDE", help="ours starts from an earlier search")
    parser.add_argument("--top-k", type=int, default=1, help="configurations that ours compares on four seeds")
    parser.add_argument("--folder", type=Path, help="keep what the sides measured, and go on from there")
    parser.add_argument("--quick", action="store_true", help="few trials of one epoch: to check that it works")
    options, overrides = sys.argv[1:], []
    if "--" in options:
        cut = options.index("--")
        options, overrides = options[:cut], options[cut + 1 :]
    chosen = parser.parse_args(options, argparse.Namespace(overrides=overrides))
    if chosen.quick:
        chosen.trials, chosen.repetitions = min(chosen.trials, 4), min(chosen.repetitions, 2)
    if chosen.one_thread:
        os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen.workloads:
            for cells in measured(name, chosen, chosen.folder or Path(temporary)):
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
