"""Adam for all rows as one fused Triton kernel.

The kernel reads and writes each number once; the equivalent PyTorch operations do so about fifteen times. Import this
module only if a CUDA device is present: Triton is part of PyTorch's CUDA builds.
"""

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

_SIZE = 1024


@triton.jit
def _step(value, gradient, mean, square, numbers, width, start, stop, SIZE: tl.constexpr):  # noqa: N803
    row = tl.program_id(1).to(tl.int64)
    column = start + tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    valid = column < stop
    at = row * width + column
    shrink, added = tl.load(numbers + row * 8), tl.load(numbers + row * 8 + 1)
    new, old, rest = tl.load(numbers + row * 8 + 2), tl.load(numbers + row * 8 + 3), tl.load(numbers + row * 8 + 4)
    corrected, root, eps = (
        tl.load(numbers + row * 8 + 5),
        tl.load(numbers + row * 8 + 6),
        tl.load(numbers + row * 8 + 7),
    )
    v = tl.load(value + at, mask=valid, other=0.0) * shrink
    g = tl.load(gradient + at, mask=valid, other=0.0) + added * v
    m = tl.load(mean + at, mask=valid, other=0.0)
    m += new * (g - m)
    s = tl.load(square + at, mask=valid, other=0.0) * old + rest * g * g
    tl.store(mean + at, m, mask=valid)
    tl.store(square + at, s, mask=valid)
    tl.store(value + at, v - corrected * m / (tl.sqrt(s) / root + eps), mask=valid)


def step(value: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, numbers: Tensor, span: tuple[int, int]) -> None:
    """Apply one Adam step to the columns `span` of all rows.

    Args:
        value: Parameters `[rows, size]`, contiguous; updated in place.
        gradient: Gradients `[rows, size]`.
        mean: Running mean of the gradients `[rows, size]`; updated in place.
        square: Running mean of the squared gradients `[rows, size]`; updated in place.
        numbers: Coefficients `[rows, 8]` of the same dtype: 1 - lr * decoupled decay, coupled decay, 1 - beta1, beta2,
            1 - beta2, lr / (1 - beta1^t), sqrt(1 - beta2^t), eps.
        span: The first column and the column after the last.
    """
    start, stop = span
    grid = (triton.cdiv(stop - start, _SIZE), value.shape[0])
    _step[grid](value, gradient, mean, square, numbers, value.shape[1], start, stop, SIZE=_SIZE)  # pyright: ignore[reportIndexIssue]
