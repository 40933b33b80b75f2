"""Small networks and batches in every layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dropsearch.models import build_net
from dropsearch.models.network import Network

SHAPES: dict[str, tuple[int, ...]] = {"image": (2, 8, 8), "signal": (2, 12), "sequence": (10, 3)}
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16, 12]},
    "cnn": {"channels": [4, 6], "head": [8]},
    "rnn": {"hidden_size": 8, "layers": 2},
    "transformer": {"width": 8, "heads": 2, "feedforward": 12},
}


@pytest.fixture
def small_net() -> Callable[..., Network]:
    """Make a small network by name, for any layout."""

    def make(name: str, layout: str = "image", *, seed: int = 0, **options: Any) -> Network:
        torch.manual_seed(seed)
        shape = {"input_shape": SHAPES[layout], "classes": 5, "layout": layout}
        return build_net({"name": name, **shape, **SMALL[name], **options})

    return make


@pytest.fixture
def batch() -> Callable[..., tuple[Tensor, ...]]:
    """Make the inputs of a batch in a layout: sequences are zero padded and come with their lengths."""

    def make(layout: str = "image", size: int = 6) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(size, *SHAPES[layout], generator=generator)
        if layout != "sequence":
            return (x,)
        lengths = 1 + torch.arange(size) * 3 % SHAPES[layout][0]
        x[torch.arange(x.shape[1]) >= lengths[:, None]] = 0
        return x, lengths

    return make
