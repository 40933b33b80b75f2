"""What a whole sequential search costs beside a loop of plain `Trainer.fit` with the same epochs and validation.

python scripts/bench/whole_search.py [SUBJECT ...] [--trials 8] [--epochs 5] [--rounds 7]
python scripts/bench/whole_search.py SUBJECT --only SIDE [--profile]
valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file=FILE python scripts/bench/whole_search.py SUBJECT \
    --instructions FILE

A subject is one of those below, or NAME:MODEL:DATA, names in tests/ecosystem/NAME.py, in an environment that
scripts/ecosystem NAME makes.

Sides: `plain` (a loop of Trainer.fit), `plain with MLflow` (the same with MLFlowLogger), `search` (a search of ours in
one process, without a tracker) and `search with MLflow`. A search includes proposals (TPE, median pruner), its study,
the building of each trial's module, the train loss with dropout off, and MLflow's process; start-up before it and what
follows a search (confirmation, report) are left out. Plain has the constructor's own rates, learning rate and weight
decay, on which the cost does not depend, and as many batches as the search, which drops incomplete ones.

Each round runs all sides in turn, in alternating order, and the ratios of a round are taken, so that other load falls
on all alike. CPU seconds of the process and all that it starts are taken. With --only, one side runs once after a
first one, and its Python calls are counted, which other load does not change; --profile prints where the time goes.
With --instructions, the instructions of each side without MLflow are counted by callgrind, in all threads.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import importlib
import logging
import os
import pstats
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "examples")]

import torch  # noqa: E402
from given_trials import BARE, own_examples  # noqa: E402
from lightning import LightningModule  # noqa: E402
from lightning.pytorch.loggers import MLFlowLogger  # noqa: E402
from processor_seconds import cpu_seconds  # noqa: E402
from section import median_and_range  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from dropsearch.config.command_line import with_user_targets  # noqa: E402
from dropsearch.config.compose import compose_overrides  # noqa: E402
from dropsearch.core.global_state import seeded  # noqa: E402
from dropsearch.core.processes import Stopwatch  # noqa: E402
from dropsearch.datasets.data_module import TensorDataModule  # noqa: E402
from dropsearch.datasets.user_data import UserData  # noqa: E402
from dropsearch.experiment import engines  # noqa: E402
from dropsearch.experiment.context import build_context  # noqa: E402
from dropsearch.experiment.run_progress import TrackedFeed  # noqa: E402
from dropsearch.experiment.runner import ExperimentRun  # noqa: E402
from dropsearch.models import Classifier, build_net  # noqa: E402
from dropsearch.tracking import make_tracker  # noqa: E402
from dropsearch.training.planning.plan import Plan  # noqa: E402
from dropsearch.training.protocols import is_in_memory  # noqa: E402
from dropsearch.training.trainers import trainer_class  # noqa: E402


@dataclass(frozen=True)
class Subject:
    """What is trained: the words of a search, and what plain Lightning trains."""

    words: tuple[str, ...]
    plain: Callable[[], tuple[Callable[[], LightningModule], Callable[[], tuple[Any, Any]]]]
    """Returns what builds a module, and what builds its training and validation loaders."""


def template() -> Any:
    """Return the module in the style of lightning-hydra-template."""
    from tests.ecosystem import lightning_hydra_template as written

    return written.template, loaders_of(written.DigitsDataModule())


def example() -> Any:
    """Return the module of examples/user_module.py."""
    user_module = importlib.import_module("user_module")  # the one in examples
    return user_module.LitNet, loaders_of(user_module.Digits())


def digits_mlp() -> Any:
    """Return the built-in MLP on digits."""
    source = TensorDataModule("digits")
    source.setup()
    train, val = (TensorDataset(*own_examples(each)) for each in (source.train_loader(0), source.val_dataloader()))
    shape = {"input_shape": list(source.input_shape), "layout": source.layout, "classes": source.classes}
    size = source.batch_size
    return (
        lambda: Classifier(build_net({"name": "mlp", **shape}), lr=1e-3, weight_decay=1e-2),
        lambda: (DataLoader(train, batch_size=size, shuffle=True, drop_last=True), DataLoader(val, batch_size=size)),
    )


def loaders_of(data: Any) -> Callable[[], tuple[Any, Any]]:
    """Return what builds the loaders of a data module, which is set up once, with the batches that the search has."""
    data.setup("fit")
    source = UserData(data, "data")
    is_held = is_in_memory(source)  # then the search drops incomplete training batches

    def loaders() -> tuple[Any, Any]:
        train = data.train_dataloader()
        options = {"batch_size": train.batch_size, "collate_fn": train.collate_fn, "drop_last": is_held}
        return DataLoader(train.dataset, shuffle=True, **options), data.val_dataloader()

    return loaders


def of_package(name: str) -> Subject:
    """Return the subject of a public package: NAME:MODEL:DATA."""
    package, model, data = name.split(":")
    file = f"tests.ecosystem.{package}"

    def plain() -> Any:
        module = importlib.import_module(file)
        return getattr(module, model), loaders_of(getattr(module, data)())

    return Subject((f"model._target_={file}.{model}", f"data._target_={file}.{data}"), plain)


TEMPLATE = "tests.ecosystem.lightning_hydra_template"
SUBJECTS = {
    "template": Subject(
        (f"model._target_={TEMPLATE}.template", f"data._target_={TEMPLATE}.DigitsDataModule", "monitor=val/loss"),
        template,
    ),
    "example": Subject(("model._target_=user_module.LitNet", "data._target_=user_module.Digits"), example),
    "digits-mlp": Subject(("model=mlp", "data=digits"), digits_mlp),
}


def subject_of(name: str) -> Subject:
    """Return a subject by its name."""
    return of_package(name) if ":" in name else SUBJECTS[name]


SIDES = ("plain", "search", "plain with MLflow", "search with MLflow")


def prepared(subject: Subject, side: str, trials: int, epochs: int, folder: Path) -> Iterator[None]:
    """Prepare a side at the first `next`, run it at the second, and end at the third."""
    tracked = side.endswith("MLflow")
    if side.startswith("plain"):
        yield from plain(subject, tracked, trials, epochs, folder)
    else:
        yield from search(subject, tracked, trials, epochs, folder)


def plain(subject: Subject, tracked: bool, trials: int, epochs: int, folder: Path) -> Iterator[None]:
    """Train by Lightning as it is."""
    make, loaders = subject.plain()
    uri = f"sqlite:///{folder.resolve()}/plain.db"
    if tracked:
        MLFlowLogger(experiment_name="plain", tracking_uri=uri).experiment.search_experiments()
    yield
    for seed in range(trials):
        logger = MLFlowLogger(experiment_name="plain", tracking_uri=uri) if tracked else False
        with seeded(seed):
            module = make()
            trainer_class(module)(max_epochs=epochs, **{**BARE, "logger": logger}).fit(module, *loaders())
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # set by the logger; the next search would follow it


def search(subject: Subject, tracked: bool, trials: int, epochs: int, folder: Path) -> Iterator[None]:
    """Search one arm, one trial at a time."""
    words = [*subject.words, f"output_dir={folder}", f"study.n_trials={trials}", f"trainer.max_epochs={epochs}"]
    words += ["arms=[dropout]", "engine=sequential", "engine.processes=1", "trainer.accelerator=cpu", "task=plan"]
    context = build_context(compose_overrides(with_user_targets(words)))
    tracker = make_tracker("mlflow" if tracked else "none", uri=None, output_dir=folder)
    with closing(engines.engine(context, Plan("sequential", 1, "asked"), lambda _: None)) as engine:
        run = ExperimentRun(context, engine, tracker, Stopwatch())
        run.open()
        _ = tracker.info  # waits for MLflow's import and tables
        yield
        run.arm_runner.search(lambda feed: TrackedFeed(feed, tracker, run.progress))
        tracker.close()
        yield
    results = run.arm_runner.studies[0].search.results()
    states = [result.state for result in results]
    assert states == ["COMPLETE"] * trials, f"a pruned or failed trial cannot be compared: {states}"


@contextmanager
def ready(subject: Subject, side: str, trials: int, epochs: int) -> Iterator[Callable[[], Any]]:
    """Prepare a side and return what runs it once."""
    with tempfile.TemporaryDirectory() as folder:
        steps = prepared(subject, side, trials, epochs, Path(folder))
        next(steps)
        gc.collect()
        yield lambda: next(steps)
        for _ in steps:
            pass


def seconds(subject: Subject, side: str, trials: int, epochs: int) -> float:
    """Return the CPU seconds of a side."""
    with ready(subject, side, trials, epochs) as run:
        before = cpu_seconds()
        run()
        return cpu_seconds() - before


def compared(name: str, given: argparse.Namespace) -> None:
    """Print the ratios of a subject's sides."""
    subject = subject_of(name)
    taken: dict[str, list[float]] = {side: [] for side in given.sides}
    for number in range(given.rounds + 1):
        for side in given.sides[:: 1 if number % 2 else -1]:
            taken[side].append(seconds(subject, side, given.trials, given.epochs))
    for side in given.sides:  # without the first round, which imports and fills caches
        print(f"{name}: {side}: {median_and_range([each / given.trials for each in taken[side][1:]], '.3f')} s a trial")
    for one, other in (
        ("search", "plain"),
        ("search with MLflow", "plain with MLflow"),
        ("search with MLflow", "plain"),
    ):
        if {one, other} <= taken.keys():
            ratios = [a / b for a, b in zip(taken[one][1:], taken[other][1:], strict=True)]
            print(f"{name}: {one} / {other}: {median_and_range(ratios, '.2f')}", flush=True)


def counted(name: str, given: argparse.Namespace) -> None:
    """Print the number of Python calls of one side, and with `profile` where its time goes."""
    subject = subject_of(name)
    seconds(subject, given.only, 1, given.epochs)
    profiler = cProfile.Profile()
    with ready(subject, given.only, given.trials, given.epochs) as run:
        profiler.enable()
        run()
        profiler.disable()
    stats: Any = pstats.Stats(profiler)
    print(f"{name}: {given.only}: {stats.total_calls / given.trials:,.0f} calls a trial")
    if given.profile:
        stats.sort_stats("cumulative").print_stats(120)


def instructions(name: str, given: argparse.Namespace) -> None:
    """Print the instructions of the sides without MLflow, by the callgrind that this process runs in."""
    subject, counts = subject_of(name), {}
    for side in SIDES[:2]:
        seconds(subject, side, 1, given.epochs)
        with ready(subject, side, given.trials, given.epochs) as run:
            callgrind("--instr=on")
            run()
            callgrind(f"--dump={side}")
            callgrind("--instr=off")
        newest = max(
            given.instructions.parent.glob(given.instructions.name + ".*"), key=lambda file: file.stat().st_mtime
        )
        counts[side] = int(re.findall(r"^(?:totals|summary): (\d+)", newest.read_text(), re.MULTILINE)[-1])
        print(f"{name}: {side}: {counts[side] / given.trials / 1e6:,.0f} million instructions a trial", flush=True)
    print(f"{name}: search / plain: {counts['search'] / counts['plain']:.3f}", flush=True)


def callgrind(order: str) -> None:
    """Give an order to the callgrind that this process runs in."""
    subprocess.run(["callgrind_control", order, str(os.getpid())], check=True, capture_output=True)


def main() -> None:
    """Print the ratios, or the calls of one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "subjects", nargs="*", default=[*SUBJECTS], metavar="SUBJECT", help=", ".join([*SUBJECTS, "NAME:MODEL:DATA"])
    )
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--instructions", type=Path, metavar="FILE")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for package in ("lightning.pytorch", "alembic", "mlflow"):
        logging.getLogger(package).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for name in given.subjects:
        (instructions if given.instructions else counted if given.only else compared)(name, given)


if __name__ == "__main__":
    main()
