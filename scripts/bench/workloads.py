"""The workloads that both sides of the comparison train: the same nets, data, epochs and batches."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dropsearch.config.command_line import with_user_targets

DATA_ROOT = os.environ.get("DROPSEARCH_DATA", "data")


@dataclass(frozen=True)
class Workload:
    """One line of the table."""

    model: str
    data: str
    trials: int
    epochs: int
    overrides: tuple[str, ...] = ()
    arm: str = "dropout"

    @property
    def is_user_module(self) -> bool:
        """Whether model and data are classes of a user."""
        return "." in self.model


WORKLOADS = {
    "digits-mlp": Workload("mlp", "digits", 32, 10, ("data.batch_size=64",)),
    "fashion-mlp": Workload(
        "mlp", "fashion_mnist", 12, 2, ("model.hidden=[256,256]", "data.train_size=10000", "data.batch_size=128")
    ),
    "fashion-cnn": Workload(
        "cnn",
        "fashion_mnist",
        4,
        1,
        ("model.channels=[16,32]", "model.head=[64]", "data.train_size=10000", "data.batch_size=128"),
        arm="both",
    ),
    "spoken-lstm": Workload("rnn", "spoken_digits", 8, 1, ("data.batch_size=64",)),
    "mnist1d-transformer": Workload("transformer", "mnist1d", 8, 1, ("data.batch_size=64",)),
}

MORE_WORKLOADS = {
    "mnist1d-mlp": Workload("mlp", "mnist1d", 32, 10, ("model.hidden=[128,128]",)),
    "user-module": Workload("user_module.LitMLP", "user_module.Digits", 16, 10, ("engine=sequential",)),
}
"""Workloads of single sections; the user module has BatchNorm, and trains one trial at a time."""


QUICK_WIDTH = 4
QUICK = (
    "study.n_trials=4",
    "trainer.max_epochs=1",
    f"engine.width={QUICK_WIDTH}",
    "data.train_size=512",
    "data.val_fraction=0.05",
)
"""Overrides that make a workload cheap: to see that everything works."""


def workload(name: str) -> Workload:
    """Return the workload with a name."""
    return {**WORKLOADS, **MORE_WORKLOADS}[name]


def overrides(name: str, folder: str) -> list[str]:
    """Return the configuration of a workload: search only, no pruning, random proposals."""
    work = workload(name)
    chosen = (f"model={work.model}", f"data={work.data}", f"data.root={DATA_ROOT}")
    if work.is_user_module:
        chosen = (f"model._target_={work.model}", f"data._target_={work.data}")
    return [
        *chosen,
        f"arms=[{work.arm}]",
        f"study.n_trials={work.trials}",
        f"trainer.max_epochs={work.epochs}",
        "sampler=random",
        "pruner=none",
        f"output_dir={folder}",
        *work.overrides,
    ]


def words(name: str, folder: str, *more: str) -> list[str]:
    """Return the configuration of a workload with other values of some keys."""
    given = {word.partition("=")[0] for word in more}
    kept = [word for word in overrides(name, folder) if word.partition("=")[0] not in given]
    return with_user_targets([*kept, *more])
