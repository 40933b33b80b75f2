"""Float64 throughout, also where a module asks for float32 itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class DoublePrecision(TorchFunctionMode):
    """Gives float64 to whoever asks for float32, by ``x.float()``, ``x.to(torch.float32)`` or a ``dtype`` argument.

    Many modules compute softmax, norms or the loss in float32 whatever their weights are. In a module whose weights
    are float64 that would round away what is to be compared, or meet a layer that refuses it.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {name: _doubled(value) for name, value in (kwargs or {}).items()}
        return (Tensor.double if func is Tensor.float else func)(*map(_doubled, args), **given)


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
