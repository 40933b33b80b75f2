"""Philox 4x64-10 as one CUDA kernel; `philox` in torch needs about three hundred.

Imported only with a CUDA device; Triton is part of torch's CUDA builds.
"""

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

_BLOCKS = 256


@triton.jit
def _fill(field, seeds, steps, index, site, blocks, BLOCKS: tl.constexpr):  # noqa: N803
    row = tl.program_id(1)
    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    valid = block < blocks
    x0 = tl.load(index + block, mask=valid, other=0).to(tl.uint64, bitcast=True)
    x2 = tl.load(site + block, mask=valid, other=0).to(tl.uint64, bitcast=True)
    x1 = tl.zeros_like(x0) + tl.load(steps + row).to(tl.uint64, bitcast=True)
    x3 = tl.zeros_like(x0)
    k0 = tl.zeros_like(x0) + tl.load(seeds + row).to(tl.uint64, bitcast=True)
    k1 = tl.zeros_like(x0)
    m0 = tl.full((BLOCKS,), 0xD2E7470EE14C6C93, tl.uint64)
    m1 = tl.full((BLOCKS,), 0xCA5A826395121157, tl.uint64)
    b0 = tl.full((BLOCKS,), 0x9E3779B97F4A7C15, tl.uint64)
    b1 = tl.full((BLOCKS,), 0xBB67AE8584CAA73B, tl.uint64)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(x0, m0), x0 * m0
        high1, low1 = tl.umulhi(x2, m1), x2 * m1
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = k0 + b0, k1 + b1
    start = field + (row.to(tl.int64) * blocks + block) * 4
    tl.store(start, x0.to(tl.int64, bitcast=True), mask=valid)
    tl.store(start + 1, x1.to(tl.int64, bitcast=True), mask=valid)
    tl.store(start + 2, x2.to(tl.int64, bitcast=True), mask=valid)
    tl.store(start + 3, x3.to(tl.int64, bitcast=True), mask=valid)


def fill(field: Tensor, seeds: Tensor, steps: Tensor, index: Tensor, site: Tensor) -> None:
    """Write the four words of each counter and row.

    Args:
        field: int64 `[rows, blocks, 4]`, contiguous.
        seeds: The first word of each row's key, int64 `[rows]`.
        steps: The second word of each row's counters, int64 `[rows]`.
        index: The first word of each counter, int64 `[blocks]`.
        site: The third word of each counter, int64 `[blocks]`.
    """
    rows, blocks = field.shape[0], len(index)
    _fill[(triton.cdiv(blocks, _BLOCKS), rows)](field, seeds, steps, index, site, blocks, BLOCKS=_BLOCKS)  # pyright: ignore[reportIndexIssue]
