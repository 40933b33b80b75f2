"""Trainings of `DeepMLP` at given rates, kept in a file, so that each is trained once and a stopped script goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainings import Trainings

from dropsearch.core.records import TrialResult, TrialSpec

LEARNING_RATE, WEIGHT_DECAY, EPOCHS, SIZE = 1e-4, 1e-7, 75, 5000

Rates = tuple[float, ...]
"""The dropping rate behind each layer, from the first."""
LAYERS = 6
SHAPES = {"constant": range(6), "late half": range(3, 6), "early half": range(3), "first third": range(2)}
"""The layers that drop, counted from 0."""


@dataclass(frozen=True)
class Run:
    """What one training showed, by epoch, with dropout off; losses in nats, accuracies in [0, 1]."""

    rates: Rates
    seed: int
    val_loss: list[float]
    val_acc: list[float]
    test_loss: list[float]
    test_acc: list[float]

    @property
    def chosen(self) -> int:
        """The epoch with the least validation loss."""
        return min(range(len(self.val_loss)), key=self.val_loss.__getitem__)


def schedule(shape: str, rate: float) -> Rates:
    """Return the rate of each layer."""
    return tuple(rate if layer in SHAPES[shape] else 0.0 for layer in range(LAYERS))


def training_overrides(root: str, epochs: int, size: int) -> list[str]:
    """Return the configuration of all trainings; matrix products are those of bfloat16, as in the publication."""
    return [
        "model._target_=deep_mlp.DeepMLP",
        "data._target_=deep_mlp.Images",
        f"data.root={root}",
        f"data.size={size}",
        f"trainer.max_epochs={epochs}",
        "trainer.precision=bf16-mixed",
    ]


class Runs:
    """Trains at given rates, each rates and seed once.

    Args:
        folder: Where the runs are kept, in a file for each number of epochs and images.
        root: Folder of fetched data sets.
        epochs: Epochs of a training.
        size: Images of each part of the data.
        together: How many train at once.
        overrides: Further configuration, as on the command line.
    """

    def __init__(
        self, folder: Path, root: str, epochs: int, size: int, together: int, overrides: Sequence[str]
    ) -> None:
        self.path = folder / f"runs-{size}-images-{epochs}-epochs.jsonl"
        self.together = together
        self._overrides = [*training_overrides(root, epochs, size), f"engine.width={together}", *overrides]
        self._trainings: Trainings | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def kept(self) -> dict[tuple[Rates, int], Run]:
        """The runs of the file, by rates and seed."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        found = [json.loads(line) for line in lines]
        return {(tuple(each["rates"]), each["seed"]): Run(**{**each, "rates": tuple(each["rates"])}) for each in found}

    def train(self, wanted: Iterable[tuple[Rates, int]]) -> list[Run]:
        """Return the runs of these rates and seeds; those that are missing are trained and kept."""
        wanted, kept = list(dict.fromkeys(wanted)), self.kept
        missing = [each for each in wanted if each not in kept]
        for first in range(0, len(missing), self.together):
            self._train(missing[first : first + self.together])
        kept = self.kept if missing else kept
        return [kept[each] for each in wanted]

    def _train(self, missing: Sequence[tuple[Rates, int]]) -> None:
        if self._trainings is None:
            self._trainings = Trainings(self._overrides, ["dropout"])
        sites = self._trainings.sites
        specs = [
            TrialSpec("dropout", number, seed, dict(zip(sites, rates, strict=True)), LEARNING_RATE, WEIGHT_DECAY)
            for number, (rates, seed) in enumerate(missing)
        ]
        lines = [json.dumps(_line(result)) + "\n" for result in self._trainings.train(specs)]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(lines)


def _line(result: TrialResult) -> dict[str, Any]:
    return {
        "rates": list(result.spec.rates.values()),
        "seed": result.spec.seed,
        "val_loss": [round(epoch.val_loss, 6) for epoch in result.curve],
        "val_acc": [round(epoch.val_acc, 6) for epoch in result.curve],
        "test_loss": [round(epoch.logged["test_loss"], 6) for epoch in result.curve],
        "test_acc": [round(epoch.logged["test_acc"], 6) for epoch in result.curve],
    }
