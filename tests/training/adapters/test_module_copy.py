"""A copy of a module shares its weights and disturbs nothing else that it holds."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import nn
from torchmetrics import CatMetric, MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassPrecision
from torchmetrics.wrappers import MinMaxMetric

from dropsearch.training.adapters.validation_copy import module_copy


class Keeping(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Linear(3, 2)
        self.net = nn.Sequential(self.same, nn.BatchNorm1d(2))
        self.mean, self.several = MeanMetric(), MetricCollection([MulticlassAccuracy(2), MeanMetric()])
        self.outputs: dict[str, Any] = {"list": [torch.ones(2)], "pair": (1, [2])}
        self.of_a_graph = self.same.weight.sum()
        self.epoch = 0


def test_a_copy_holds_the_weights_themselves_and_copies_of_the_rest() -> None:
    module: Any = Keeping()
    with module_copy(module) as twin:
        assert twin.net[0].weight is module.net[0].weight
        assert twin.net[0] is twin.same is not module.same
        twin.outputs["list"].append(1)
        twin.outputs["pair"][1].append(3)
        twin.outputs["list"][0].add_(1)
        twin.net[1].running_mean.add_(1)
        twin.epoch = 5
        assert twin.of_a_graph.grad_fn is None
        assert torch.equal(twin.of_a_graph, module.of_a_graph.detach())
    assert [float(each.sum()) for each in module.outputs["list"]] == [2.0]
    assert module.outputs["pair"] == (1, [2])
    assert float(module.net[1].running_mean.sum()) == 0
    assert module.epoch == 0


def test_each_copy_is_of_the_module_as_it_is() -> None:
    module: Any = Keeping()
    with module_copy(module):
        pass
    module.epoch, module.outputs, module.mean.nan_strategy = 3, {"new": []}, "ignore"
    module.added = nn.Linear(2, 2)
    with module_copy(module) as twin:
        assert (twin.epoch, twin.outputs, twin.mean.nan_strategy) == (3, {"new": []}, "ignore")
        assert twin.added.weight is module.added.weight


class Wrapping(nn.Module):
    """Is copied by its constructor, as a compiled module is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.mode = inner, inner.training

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Wrapping, (self.inner,)


def test_a_part_that_its_constructor_copies_has_its_inner_module() -> None:
    module: Any = Keeping()
    module.wrapping = Wrapping(nn.Linear(3, 2))
    with module_copy(module) as twin:
        assert twin.wrapping.mode
        assert twin.wrapping.inner.weight is module.wrapping.inner.weight


class Remembering(MeanMetric):
    """Keeps more than its states: a list, a tensor that it adds to, and the last loss with its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []
        self.register_buffer("total", torch.zeros(()))
        self.last: Any = None

    def update(self, value: Any) -> None:  # type: ignore[override]
        self.seen.append(float(value))
        self.total.add_(value)  # type: ignore[operator]
        self.last = torch.ones((), requires_grad=True) * value
        super().update(value)


METRICS = {
    "mean": MeanMetric,
    "list states": CatMetric,
    "one that remembers": Remembering,
    "collection": lambda: MetricCollection([MeanMetric(), MeanSquaredErrorOfOne()]),
    "wrapper": lambda: MinMaxMetric(MeanMetric()),
}


class MeanSquaredErrorOfOne(MeanMetric):
    def update(self, value: Any) -> None:  # type: ignore[override]
        super().update(value**2)


def held(metric: nn.Module) -> list[Any]:
    """Return what a metric and all in it hold, as values that can be compared."""
    return [
        (name, repr(value))
        for part in metric.modules()
        for name, value in vars(part).items()
        if name not in ("training", "update", "compute", "_update_signature", "_modules")
    ]


@pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)
def test_a_metric_is_empty_in_a_copy_and_as_before_behind_it(make: Any) -> None:
    module, reference = LightningModule(), make()
    module.metric, value = make(), torch.tensor(2.0)
    reference.update(value)
    module.metric.update(value)
    before, fresh = held(module.metric), make()
    fresh.update(torch.tensor(5.0))
    with contextlib.suppress(KeyError), module_copy(module) as twin:  # an error restores it like an end
        twin.metric.update(torch.tensor(5.0))
        twin.eval()
        assert str(twin.metric.compute()) == str(fresh.compute())
        raise KeyError
    assert held(module.metric) == before
    assert module.metric.training
    for each in (module.metric, reference):
        each.update(torch.tensor(4.0))
    assert str(module.metric.compute()) == str(reference.compute())


def test_collections_share_states_within_a_group_behind_a_copy() -> None:
    module: Any = Keeping()
    module.several = MetricCollection([MulticlassAccuracy(2), MulticlassPrecision(2)])
    guess, truth = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])
    for _ in range(2):
        module.several.update(guess, truth)
    expected = module.several.compute()
    with module_copy(module) as twin:
        twin.several.update(1 - guess, truth)
        assert float(twin.several.compute()["MulticlassAccuracy"]) != float(expected["MulticlassAccuracy"])
    module.several.update(guess, truth)
    assert {k: float(v) for k, v in module.several.compute().items()} == {k: float(v) for k, v in expected.items()}
