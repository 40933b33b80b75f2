"""The workloads that both sides of the comparison train: the same nets, data, epochs and batches."""

from __future__ import annotations

import os
from dataclasses import dataclass

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


QUICK_WIDTH = 4
QUICK = (
    "study.n_trials=4",
    "trainer.max_epochs=1",
    f"engine.width={QUICK_WIDTH}",
    "data.train_size=512",
    "data.val_fraction=0.05",
)
"""Overrides that make a workload cheap: to see that everything works."""


def overrides(name: str, folder: str) -> list[str]:
    """Return the configuration of a workload: search only, no pruning, random proposals."""
    work = WORKLOADS[name]
    return [
        f"model={work.model}",
        f"data={work.data}",
        f"data.root={DATA_ROOT}",
        f"arms=[{work.arm}]",
        f"study.n_trials={work.trials}",
        f"trainer.max_epochs={work.epochs}",
        "sampler=random",
        "pruner=none",
        f"output_dir={folder}",
        *work.overrides,
    ]
