"""How fast models of public packages train: vectorized, sequentially, and by plain Lightning, in one run.

.ecosystem/NAME/bin/python scripts/bench/packages.py NAME:MODEL:DATA ... [--trials 8] [--epochs 5] [--rounds 7]

MODEL and DATA are names in tests/ecosystem/NAME.py. Each round times all sides in turn, in alternating order, and the
ratios of a round are taken, so that other load on the machine falls on all alike. One process with one thread trains.
CPU and wall time are taken; other load changes CPU time less. The side `search` is a whole sequential search: the
study and tracking in MLflow with its process, without checkpoints; start-up before it is not counted.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from given_trials import BARE, SpecFeed
from processor_seconds import cpu_seconds

from dropsearch.config.compose import compose_overrides
from dropsearch.config.user_targets import with_user_targets
from dropsearch.core.global_state import seeded
from dropsearch.core.processor_use import Stopwatch
from dropsearch.core.records import Monitor, TrialSpec
from dropsearch.datasets.given_loaders import GivenLoaders
from dropsearch.datasets.user_data import UserData
from dropsearch.experiment import engines
from dropsearch.experiment.context import build_context
from dropsearch.experiment.runner import ExperimentRun
from dropsearch.experiment.watched_feed import TrackedFeed
from dropsearch.tracking import make_tracker
from dropsearch.training.planning.plan import Plan
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
        measure(*name.split(":"), given)


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
        "search": (len(specs), lambda: search(package, model, data_name, monitor.name, given.epochs, len(specs))),
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
    for one, other in (("sequential", "plain"), ("search", "plain"), ("sequential", "vectorized")):
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


def search(package: str, model: str, data: str, monitor: str, epochs: int, trials: int) -> Seconds:
    """Search a model sequentially with its study and MLflow; return the seconds after start-up."""
    place = f"tests.ecosystem.{package}"
    with tempfile.TemporaryDirectory() as folder:
        words = [f"model._target_={place}.{model}", f"data._target_={place}.{data}", f"output_dir={folder}"]
        words += [f"study.n_trials={trials}", f"trainer.max_epochs={epochs}", f"monitor={monitor}", "arms=[dropout]"]
        words += ["engine=sequential", "engine.processes=1", "pruner=none", "trainer.accelerator=cpu", "task=plan"]
        context = build_context(compose_overrides(with_user_targets(words)))
        tracker = make_tracker("mlflow", uri=None, output_dir=Path(folder))
        with closing(engines.engine(context, Plan("sequential", 1, "asked"), lambda _: None)) as engine:
            run = ExperimentRun(context, engine, tracker, Stopwatch())
            run.open()
            _ = tracker.info  # waits for MLflow's import and tables

            def trained() -> None:
                run.arm_runner.search(lambda feed: TrackedFeed(feed, tracker, run.progress))
                tracker.close()

            seconds = timed(trained)
        results = run.arm_runner.studies[0].search.results()
    assert [result.state for result in results] == ["COMPLETE"] * trials, [result.reason for result in results]
    return seconds


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
