"""Mixed precision by explicit casts, for `torch.func.vmap`, inside which `torch.autocast` does nothing."""

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
"""What is computed in the low precision: sums of many products, where most of the time goes."""
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
"""What is computed in float32: norms, losses, and sums of what may be large."""


class MixedPrecision(TorchFunctionMode):
    """Casts what goes into products to `dtype`, and what goes into norms and losses to float32.

    Weights stay float32 and so do their gradients, as with `torch.autocast`, whose lists these follow.

    Args:
        dtype: Of the products: torch.bfloat16.
    """

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given: dict[str, Any] = dict(kwargs or {})
        if func in PRODUCTS:
            args, given = _cast((args, given), torch.float32, self.dtype)
        elif func in EXACT:
            args, given = _cast((args, given), self.dtype, torch.float32)
        return func(*args, **given)


def _cast(values: Any, old: torch.dtype, new: torch.dtype) -> Any:
    return tree_map(lambda v: v.to(new) if isinstance(v, Tensor) and v.dtype == old else v, values)
