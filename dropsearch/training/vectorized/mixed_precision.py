"""Mixed precision by explicit casts, since `torch.autocast` has no effect inside `torch.func.vmap`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

PRODUCTS = frozenset(
    [
        F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d,
        F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
        torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm,
        torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm, torch.einsum, F.scaled_dot_product_attention,
    ]
)  # fmt: skip
"""Operations computed in low precision: matrix products and convolutions, which take most of the time."""
EXACT = frozenset(
    [
        F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm, F.local_response_norm, F.normalize,
        F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, torch.log_softmax, Tensor.log_softmax,
        F.cross_entropy, F.nll_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div,
        F.binary_cross_entropy_with_logits, F.cosine_similarity,
        torch.exp, Tensor.exp, torch.log, Tensor.log, torch.logsumexp, Tensor.logsumexp, torch.pow, Tensor.pow,
        torch.sum, Tensor.sum, torch.mean, Tensor.mean, torch.prod, Tensor.prod, torch.cumsum, Tensor.cumsum,
        torch.var, Tensor.var, torch.std, Tensor.std, torch.norm, Tensor.norm,
    ]
)  # fmt: skip
"""Operations computed in float32: norms, losses, exponentials and reductions."""


class MixedPrecision(TorchFunctionMode):
    """Casts the inputs of `PRODUCTS` to `dtype` and the inputs of `EXACT` to float32.

    Weights and their gradients remain float32. The lists follow those of `torch.autocast`.
    """

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options: dict[str, Any] = dict(kwargs or {})
        if func in PRODUCTS:
            args, options = _cast((args, options), torch.float32, self.dtype)
        elif func in EXACT:
            args, options = _cast((args, options), self.dtype, torch.float32)
        return func(*args, **options)


def _cast(values: Any, old: torch.dtype, new: torch.dtype) -> Any:
    return tree_map(lambda v: v.to(new) if isinstance(v, Tensor) and v.dtype == old else v, values)
