"""What a checkpoint keeps loads without running code, whether that was tried or is known."""

from __future__ import annotations

import io
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dropsearch.training.adapters.checkpoints import _is_plain


def loads(value: Any) -> bool:
    stream = io.BytesIO()
    torch.save(value, stream)
    stream.seek(0)
    try:
        torch.load(stream, weights_only=True)
    except Exception:  # pickle raises anything
        return False
    return True


class Text(str):
    """A string that is no plain one."""


def tensor_with(value: Any) -> torch.Tensor:
    tensor = torch.ones(2)
    vars(tensor)["owner"] = value
    return tensor


def mapping_with(value: Any) -> Any:
    mapping = OrderedDict(a=1)
    vars(mapping)["owner"] = value
    return mapping


def nested(value: Any) -> list[Any]:
    for _ in range(20):
        value = [value]
    return value


PLAIN = {
    "values": {"lr": 1e-3, "name": "net", "sizes": [1, (2, None)], "on": True, "raw": b"x", 3: 2**80},
    "weights": nn.BatchNorm1d(2).state_dict(),
    "tensors": [torch.ones(2), nn.Parameter(torch.ones(2)), torch.ones(2, dtype=torch.complex64).conj()],
    "a sparse tensor": torch.eye(2).to_sparse(),
    "a size": torch.Size([2, 3]),
    "a type of numbers": torch.float16,
    "nested": nested(1),
    "an ordinary attribute": mapping_with(2),
}
OTHER = {
    "a module": [nn.Tanh()],
    "a partial function": {"optimizer": {"made": partial(torch.optim.SGD, lr=1.0)}},
    "a class": nn.Tanh,
    "a key": {Text("a"): 1},
    "a number of NumPy": np.float64(1.0),
    "an attribute of a tensor": tensor_with(nn.Tanh()),
    "an attribute of a mapping": mapping_with(nn.Tanh()),
    "nested": nested(nn.Tanh()),
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_loads_is_kept(name: str) -> None:
    assert loads(PLAIN[name])
    assert _is_plain(PLAIN[name])


@pytest.mark.parametrize("name", OTHER)
def test_what_does_not_load_is_left_out(name: str) -> None:
    assert _is_plain(OTHER[name]) is loads(OTHER[name])
    assert name == "a number of NumPy" or not loads(OTHER[name])
