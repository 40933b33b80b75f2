"""Winners of arms, small and untrained, with examples that suit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch.analysis.measures.protocol import Examples, Settings, TrainedModel
from dropsearch.core.records import TrialSpec
from dropsearch.models import Classifier, build_net
from tests.models.conftest import SHAPES, SMALL

KINDS = [("mlp", "image"), ("cnn", "image"), ("cnn", "signal"), ("rnn", "sequence"), ("transformer", "sequence")]
CLASSES = 5


def examples(layout: str = "image", size: int = 40, seed: int = 1) -> Examples:
    """Random examples in a layout; sequences are zero padded and come with their lengths."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, *SHAPES[layout], generator=generator)
    targets = torch.randint(CLASSES, (size,), generator=generator)
    if layout != "sequence":
        return Examples((x,), targets)
    lengths = 1 + torch.arange(size) * 3 % SHAPES[layout][0]
    x[torch.arange(x.shape[1]) >= lengths[:, None]] = 0
    return Examples((x, lengths), targets)


def winner(
    name: str = "mlp", layout: str = "image", *, arm: str = "dropout", rate: float = 0.3, seed: int = 7, **options: Any
) -> TrainedModel:
    """One of our networks with one rate at all sites; in arms with BatchNorm its statistics are of some data."""
    torch.manual_seed(seed)
    norm = "batch" if arm in ("both", "batchnorm") else "none"
    shape = {"input_shape": SHAPES[layout], "classes": CLASSES, "layout": layout}
    net = build_net({"name": name, **shape, "norm": norm, **SMALL[name], **options})
    net(*examples(layout, seed=2).inputs)
    rates = {f"net.{site}": rate for site in net.rates} if arm in ("dropout", "both") else {}
    return of_module(Classifier(net), rates, examples(layout), arm=arm, seed=seed, is_image=layout == "image")


def of_module(
    module: nn.Module,
    rates: Mapping[str, float],
    seen: Examples,
    *,
    arm: str = "dropout",
    seed: int = 7,
    is_image: bool = False,
    passes: tuple[int, ...] = (1, 2, 5, 10),
) -> TrainedModel:
    """Any module, in evaluation mode, with the same examples for each set."""
    spec = TrialSpec(arm, 0, seed, rates, lr=1e-3, weight_decay=0.0)
    settings = Settings(monte_carlo=passes)
    return TrainedModel(spec, module.eval(), module, seen, seen, seen, is_image, settings)


def state(trained: TrainedModel) -> list[Any]:
    """All of a winner's module that a measure must leave as it was, and torch's generator."""
    module = trained.module
    tensors = [*module.parameters(), *module.buffers()]
    parts = [(part.training, list(part._forward_hooks), list(part._forward_pre_hooks)) for part in module.modules()]
    momenta = [getattr(part, "momentum", None) for part in module.modules()]
    return [*map(id, tensors), *map(_content, tensors), parts, momenta, torch.get_rng_state().tolist()]


def _content(tensor: Tensor) -> list[Any]:
    return tensor.detach().tolist()
