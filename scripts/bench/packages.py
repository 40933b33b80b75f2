"""How fast models of public packages train: vectorized, sequentially, and by plain Lightning, in one run.

.ecosystem/NAME/bin/python scripts/bench/packages.py NAME:MODEL:DATA ... [--trials 8] [--epochs 5] [--rounds 7]

MODEL and DATA are names in tests/ecosystem/NAME.py. Each round times all sides in turn, in alternating order, and the
ratios of a round are taken, so that other load on the machine falls on all alike. One process with one thread trains.
CPU and wall time are taken; other load changes CPU time less. whole_search.py measures whole sequential searches.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from given_trials import BARE, SpecFeed
from processor_seconds import cpu_seconds

from dropsearch.core.global_state import seeded
from dropsearch.core.records import Monitor, TrialSpec
from dropsearch.datasets.given_loaders import GivenLoaders
from dropsearch.datasets.user_data import UserData
from dropsearch.training.protocols import Engine, TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.trainers import quiet_lightning, trainer_class
from dropsearch.training.vectorized.engine import VectorizedEngine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME:MODEL:DATA")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sides", nargs="+", default=["plain", "sequential", "vectorized"])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in given.models:
        package, model, data = name.split(":")
        measure(package, model, data, given)


def measure(package: str, model: str, data_name: str, given: argparse.Namespace) -> None:
    """Time the sides of one model and print their ratios."""
    module = importlib.import_module(f"tests.ecosystem.{package}")
    make, data = getattr(module, model), getattr(module, data_name)()
    source = UserData(
        GivenLoaders(data["train_dataloaders"], data["val_dataloaders"]) if isinstance(data, dict) else data, "data"
    )
    monitor = Monitor(getattr(module, "MONITOR", "val_loss"))
    settings = TrainerSettings(given.epochs, "cpu", "32-true", monitor=monitor)
    specs = [TrialSpec("dropout", n, 50 + n, {}, lr=1e-3, weight_decay=0.0) for n in range(given.trials)]

    def make_module(spec: TrialSpec) -> Any:
        with seeded(spec.seed):
            return make()

    rows = source.in_rows()
    few = specs[: max(given.trials // 4, 1)]
    sides: dict[str, tuple[int, Callable[[], Seconds]]] = {
        "plain": (len(few), lambda: timed(lambda: plain(make_module, source, few, given.epochs))),
        "sequential": (len(few), lambda: timed(lambda: train(SequentialEngine(make_module, source, settings), few))),
    }
    if rows is not None:
        engine = VectorizedEngine(make_module, rows, settings, len(specs))
        sides["vectorized"] = (len(specs), lambda: timed(lambda: train(engine, specs)))
    sides = {name: side for name, side in sides.items() if name in given.sides}
    seconds: dict[str, list[Seconds]] = {name: [] for name in sides}
    for number in range(given.rounds + 1):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            count, run = sides[name]
            cpu, wall = run()
            seconds[name].append((cpu / count, wall / count))
    print(f"{package} {model}: {given.trials} trials of {given.epochs} epochs, {given.rounds} rounds")
    for one, other in (("sequential", "plain"), ("sequential", "vectorized")):
        if {one, other} <= seconds.keys():
            pairs = list(zip(seconds[one][1:], seconds[other][1:], strict=True))
            cpu, wall = ([a[kind] / b[kind] for a, b in pairs] for kind in (0, 1))
            print(f"  {one} / {other}: CPU {between(cpu)}, wall {between(wall)}", flush=True)


Seconds = tuple[float, float]
"""CPU and wall seconds."""


def timed(run: Callable[[], Any]) -> Seconds:
    """Run something and return how long it took, its processes included."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    run()
    return cpu_seconds() - cpu, time.perf_counter() - wall


def between(ratios: list[float]) -> str:
    """Return the median and the range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def train(engine: Engine, specs: list[TrialSpec]) -> None:
    """Train trials, all of which must come to their end."""
    feed = SpecFeed(specs)
    engine.run(feed)
    assert {result.state for result in feed.ended} == {"COMPLETE"}, [result.reason for result in feed.ended]


def plain(make_module: Callable[[TrialSpec], Any], source: UserData, specs: list[TrialSpec], epochs: int) -> None:
    """Train by Lightning as it is, with the same batches."""
    for spec in specs:
        with quiet_lightning(), seeded(spec.seed):
            model = make_module(spec)
            trainer = trainer_class(model)(
                max_epochs=epochs,
                **BARE,
            )
            trainer.fit(model, **source.for_trainer(spec.seed))


if __name__ == "__main__":
    main()
