"""Copies of a module share its weights and disturb nothing else that it holds."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule
from torch import nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from dropsearch.training.adapters.validation_copy import ModuleCopies


class Keeping(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Linear(3, 2)
        self.net = nn.Sequential(self.same, nn.BatchNorm1d(2))
        self.mean, self.several = MeanMetric(), MetricCollection([MulticlassAccuracy(2), MeanMetric()])
        self.outputs: dict[str, Any] = {"list": [torch.ones(2)], "pair": (1, [2])}
        self.of_a_graph = self.same.weight.sum()
        self.epoch = 0


def test_a_copy_holds_the_weights_themselves_and_copies_of_the_rest():
    module: Any = Keeping()
    twin = ModuleCopies().make(module)
    assert twin.net[0].weight is module.net[0].weight
    assert twin.net[0] is twin.same is not module.same
    twin.outputs["list"].append(1)
    twin.outputs["pair"][1].append(3)
    twin.outputs["list"][0].add_(1)
    twin.net[1].running_mean.add_(1)
    twin.epoch = 5
    assert [float(each.sum()) for each in module.outputs["list"]] == [2.0]
    assert module.outputs["pair"] == (1, [2])
    assert float(module.net[1].running_mean.sum()) == 0
    assert module.epoch == 0
    assert twin.of_a_graph.grad_fn is None
    assert torch.equal(twin.of_a_graph, module.of_a_graph.detach())


def test_each_copy_is_of_the_module_as_it_is():
    module: Any = Keeping()
    copies = ModuleCopies()
    copies.make(module)
    module.epoch, module.outputs, module.mean.nan_strategy = 3, {"new": []}, "ignore"
    module.added = nn.Linear(2, 2)
    twin = copies.make(module)
    assert (twin.epoch, twin.outputs, twin.mean.nan_strategy) == (3, {"new": []}, "ignore")
    assert twin.added.weight is module.added.weight


def test_metrics_of_copies_are_empty_and_change_no_others():
    module: Any = Keeping()
    copies = ModuleCopies()
    module.mean.update(1.0)
    for _ in range(2):
        twin = copies.make(module)
        assert twin.mean._update_count == 0
        twin.mean.update(5.0)
        twin.several["MeanMetric"].update(7.0)
        assert float(twin.mean.compute()) == 5.0
    assert float(module.mean.compute()) == 1.0
    assert module.several["MeanMetric"]._update_count == 0
