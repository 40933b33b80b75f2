"""What benchmarks that train given trials share: a feed of them, their examples, and a Trainer without extras."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.datasets.loaders import TensorLoader

BARE = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
"""Arguments of a Lightning Trainer that does nothing beside training and validating."""


def own_examples(loader: TensorLoader) -> tuple[Tensor, ...]:
    """Return the examples that a loader reads, of tensors that it may share with other loaders."""
    if loader.subset is None:
        return loader.tensors
    return tuple(tensor.index_select(0, loader.subset.to(tensor.device)) for tensor in loader.tensors)


class SpecFeed:
    """A feed of given trials, which end after as many epochs as `lifetimes` says by number."""

    most_at_once: int | None = None
    held = False

    def __init__(self, specs: Sequence[TrialSpec], lifetimes: Mapping[int, int] | None = None) -> None:
        self._waiting, self._lifetimes = list(specs), lifetimes or {}
        self.ended: list[TrialResult] = []

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials."""
        specs, self._waiting = self._waiting[:count], self._waiting[count:]
        return specs

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Return of each trial whether it has had its epochs."""
        return [metrics.epoch + 1 >= self._lifetimes.get(spec.number, math.inf) for spec, metrics in reports]

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Keep the results; a failure would make a benchmark of less than it says."""
        for result in results:
            if result.state == "FAIL":
                raise SystemExit(f"{result.spec.key} failed: {result.reason}")
        self.ended += results

    def cancelled(self) -> bool:
        """Never stop."""
        return False
