"""The training batches on which a sequential trial measures the train loss with dropout off."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from dropsearch.datasets.user_data import PART_COST, PART_SHARE
from dropsearch.datasets.user_loaders import Batches, Combined, each_loader


def training_part(trainer: Any, data: Any, whole: Any, seed: int) -> tuple[Any, int]:
    """Return these batches, and in how many epochs of a search they are measured once.

    If the Trainer limits the batches of an epoch, they are an eighth of those of the trial's first epoch, since the
    trial may never train on others; measuring them takes about a twentieth of the steps of training, as elsewhere.
    """
    if isinstance(trainer.limit_train_batches, float) and trainer.limit_train_batches == 1.0:
        return whole, getattr(data, "part_every", 1)
    trained = max(trainer.num_training_batches, 1)
    validated = next(iter(trainer.num_val_batches), math.inf)
    count = int(max(min(trained // PART_SHARE, validated), 1))
    in_order = trainer.overfit_batches > 0  # Lightning shuffles no training batches then

    def first(part: Any) -> Iterator[Any]:
        loader = part if in_order else data.train_loader(seed)
        return itertools.islice(loader if each_loader(loader) == [loader] else Combined(loader), count)

    def begun(part: Any) -> Batches:
        return Batches(lambda: first(part))

    batches = [begun(each) for each in whole] if isinstance(whole, list) else begun(whole)
    return batches, math.ceil(PART_COST * count / trained)
