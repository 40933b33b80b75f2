from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from dropsearch.core.batches import TUPLE, BatchForm
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.models import Classifier, build_net
from dropsearch.training.protocols import Feed
from dropsearch.training.vectorized.engine import VectorizedEngine


@dataclass
class Loader:
    """A loader of tensors, implemented independently of the project's loader."""

    tensors: tuple[Tensor, ...]
    batch_size: int
    seed: int | None = None
    epoch: int = 0
    form: BatchForm = TUPLE

    def order(self, epoch: int) -> Tensor:
        count = len(self.tensors[0])
        if self.seed is None:
            return torch.arange(count)
        generator = torch.Generator().manual_seed(self.seed * 1000 + epoch)
        return torch.randperm(count, generator=generator)[: len(self) * self.batch_size]

    def __len__(self) -> int:
        return max(len(self.tensors[0]) // self.batch_size, 1)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = self.order(self.epoch)
        self.epoch += 1
        for start in range(0, len(order), self.batch_size):
            yield self.form.build(tuple(t[order[start : start + self.batch_size]] for t in self.tensors))


@dataclass
class Source:
    """A data source of random examples with learnable classes."""

    train: tuple[Tensor, ...]
    val: tuple[Tensor, ...]
    batch_size: int = 8

    def for_trial(self, spec: TrialSpec) -> Source:
        return self

    def train_loader(self, seed: int) -> Loader:
        return Loader(self.train, self.batch_size, seed)

    def train_part_loader(self) -> Loader:
        return Loader(tuple(t[: len(self.val[0])] for t in self.train), len(self.val[0]))

    def val_dataloader(self) -> Loader:
        return Loader(self.val, len(self.val[0]))


SHAPES: dict[str, tuple[int, ...]] = {
    "mlp": (1, 4, 4),
    "cnn": (1, 8, 8),
    "rnn": (6, 5),
    "transformer": (6, 5),
}


def make_source(model: str, dtype: torch.dtype = torch.float32, examples: int = 40) -> Source:
    generator = torch.Generator().manual_seed(5)
    shape = SHAPES[model]
    x = torch.randn(examples + 16, *shape, generator=generator, dtype=torch.float64).to(dtype)
    y = (x.flatten(1)[:, :3].argmax(1)).long()
    inputs: tuple[Tensor, ...] = (x,)
    if len(shape) == 2:
        lengths = torch.randint(2, shape[0] + 1, (len(x),), generator=generator)
        x = x * (torch.arange(shape[0]) < lengths[:, None])[..., None]
        inputs = (x, lengths)
    return Source(tuple(t[:examples] for t in (*inputs, y)), tuple(t[examples:] for t in (*inputs, y)))


SMALL: dict[str, dict[str, object]] = {
    "mlp": {"hidden": [12, 10]},
    "cnn": {"channels": [4, 6], "head": [10]},
    "rnn": {"hidden_size": 9, "layers": 2},
    "transformer": {"width": 8, "layers": 1, "heads": 2, "feedforward": 12},
}

SITES: dict[str, tuple[str, ...]] = {
    "mlp": ("input.dropout", "hidden1.dropout", "hidden2.dropout"),
    "cnn": ("block1.dropout", "block2.dropout", "head1.dropout"),
}


def make_factory(
    model: str, norm: str = "none", dtype: torch.dtype = torch.float32, **options: object
) -> Callable[[TrialSpec], Classifier]:
    net_options = {key: options.pop(key) for key in list(options) if key in ("cell", "mask", "dropout_unit")}

    def make(spec: TrialSpec) -> Classifier:
        torch.manual_seed(spec.seed)
        layout = {"layout": "sequence"} if len(SHAPES[model]) == 2 else {}
        net = build_net(
            {
                "name": model, "input_shape": list(SHAPES[model]), "classes": 3, "norm": norm, **layout,
                **SMALL[model], **net_options,
                "dropout": {site.removeprefix("net."): rate for site, rate in spec.rates.items()},
            }
        )  # fmt: skip
        return Classifier(net, lr=spec.lr, weight_decay=spec.weight_decay, **options).to(dtype)  # type: ignore[arg-type]

    return make


@dataclass
class Queue:
    """A feed that hands out a list of trials."""

    specs: list[TrialSpec]
    prune: Callable[[TrialSpec, EpochMetrics], bool] = lambda *_: False
    stop_after: int | None = None
    results: dict[int, TrialResult] = field(default_factory=dict)
    asked: int = 0
    most_at_once: int | None = None
    held = False

    def ask(self, count: int) -> list[TrialSpec]:
        specs = self.specs[self.asked : self.asked + count]
        self.asked += len(specs)
        return specs

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        return [self.prune(spec, metrics) for spec, metrics in reports]

    def tell(self, results: Sequence[TrialResult]) -> None:
        for result in results:
            assert result.spec.number not in self.results
            self.results[result.spec.number] = result

    def cancelled(self) -> bool:
        return self.stop_after is not None and len(self.results) >= self.stop_after


@dataclass
class Waiting(Queue):
    """A feed whose trials from `first` on come when that many epochs of the others were reported."""

    first: int = 2
    epochs: int = 3

    def ask(self, count: int) -> list[TrialSpec]:
        free = len(self.specs) if self.epochs <= 0 else self.first
        wanted = min(count, max(free - self.asked, 0))
        self.held = wanted < min(count, len(self.specs) - self.asked)
        return super().ask(wanted)

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        self.epochs -= len(reports)
        return super().report(reports)


def net_sites(model: str, **options: object) -> tuple[str, ...]:
    """Return the names of a model's sites."""
    module = make_factory(model, **options)(TrialSpec("dropout", 0, 0, {}, 1e-3, 0.0))  # type: ignore[arg-type]
    return tuple(f"net.{site}" for site in module.net.rates)  # type: ignore[union-attr]


def make_specs(model: str, count: int, lr: float = 3e-3, **options: object) -> list[TrialSpec]:
    """Return trials with different rates, learning rates and seeds."""
    sites = net_sites(model, **options)
    return [
        TrialSpec(
            "dropout", number, seed=100 + number,
            rates={site: round((0.15 * (number + 1) + 0.2 * index) % 0.8, 3) for index, site in enumerate(sites)},
            lr=lr * (1 + number % 3), weight_decay=1e-3 * (number % 2),
        )
        for number in range(count)
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_fallback(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if vectorized training falls back to sequential training, unless the test has the marker falls_back."""
    if request.node.get_closest_marker("falls_back"):
        return
    run = VectorizedEngine.run

    def run_without_fallback(self: VectorizedEngine, feed: Feed) -> None:
        run(self, feed)
        assert not self.failure, self.failure

    monkeypatch.setattr(VectorizedEngine, "run", run_without_fallback)
