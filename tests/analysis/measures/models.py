"""A network and some examples, as a measure gets them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropsearch.analysis.measures.protocol import Examples, Settings, TrainedModel
from dropsearch.core.records import TrialSpec


def trained(
    module: nn.Module, *inputs: Tensor, targets: Tensor | None = None, seed: int = 0, is_image: bool = False
) -> TrainedModel:
    """The module in evaluation mode, with the same examples for each set; without targets it is always right."""
    module.eval()
    with torch.no_grad():
        classes = module(*inputs).argmax(-1) if targets is None else targets
    examples = Examples(inputs, classes)
    spec = TrialSpec("dropout", 0, 7, {}, lr=1e-3, weight_decay=0.0)
    return TrainedModel(spec, module, module, examples, examples, examples, is_image, Settings(seed=seed))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that are a function of shape and seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
