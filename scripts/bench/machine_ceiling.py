"""How close a vectorized step comes to the machine's limits: matrix products and memory bandwidth.

python scripts/bench/machine_ceiling.py [WORKLOAD ...] [--quick]

The machine: the rate of one large square float32 product, and the bandwidth of one large copy (bytes read and
written). The workload: FLOPs of one step of a sequential trial by torch's own counter (see operations.py), times the
width, over the median time of its step. "Products only" is the time of the step's matrix products, each as one
`bmm` for all rows with nothing around it: the time of the step if everything else were free. Traffic is an
estimate: every operation of a trial's step reads its tensors and writes its results; where caches serve, the share of
the bandwidth can be above 1. On a CPU everything runs on one thread, as each of our processes does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from operations import Product, step_alone
from parts import Parts, step_seconds
from section import Section


def seconds(run: Callable[[], object], device: torch.device, repeats: int, calls: int = 1) -> float:
    """Return the median time of a call among `calls` in a row, waiting for the device before and after them."""
    times = []
    for repeat in range(repeats + 1):
        _wait(device)
        started = time.perf_counter()
        for _ in range(calls):
            run()
        _wait(device)
        if repeat:  # the first warms up
            times.append((time.perf_counter() - started) / calls)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def square_rate(device: torch.device, quick: bool) -> float:
    """Return the FLOP/s of a large square product in float32, in torch's present precision for it."""
    size = (1024 if quick else 2048) if device.type == "cpu" else 8192
    a, b = torch.randn(2, size, size, device=device).unbind()
    result = torch.empty_like(a)
    return 2 * size**3 / seconds(lambda: torch.mm(a, b, out=result), device, 3 if quick else 7)


def bandwidth(device: torch.device, quick: bool) -> float:
    """Return the bytes a second that a large copy reads and writes."""
    source = torch.zeros((64 if quick else 256) * 2**18 * (1 if device.type == "cpu" else 4), device=device)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / seconds(lambda: target.copy_(source), device, 3 if quick else 7)


def product_seconds(product: Product, width: int, device: torch.device, repeats: int) -> float:
    """Return the time of one product of all rows."""
    batch, rows, inner, columns = product
    left = torch.randn(batch * width, rows, inner, device=device)
    right = torch.randn(batch * width, inner, columns, device=device)
    result = torch.empty(batch * width, rows, columns, device=device)
    return seconds(lambda: torch.bmm(left, right, out=result), device, repeats, calls=10)


def rows(name: str, quick: bool) -> list[list[str]]:
    """Measure a workload."""
    parts = Parts.load(name, "engine=vectorized", quick=quick)
    width, device = parts.plan().width, parts.device
    flops, operations = step_alone(parts)
    trials = parts.vectorized(width)
    step = statistics.median(step_seconds(trials, 0.2 if quick else 2.0) for _ in range(2 if quick else 5))
    repeats = 2 if quick else 7
    products = sum(n * product_seconds(p, width, device, repeats) for p, n in operations.products.items())
    square, copy = square_rate(device, quick), bandwidth(device, quick)
    rate, traffic = flops * width / step, operations.traffic * width / step
    return [
        [
            name,
            str(width),
            f"{1000 * step:.2f}",
            f"{flops / 1e6:.1f}",
            f"{rate / 1e9:,.1f} of {square / 1e9:,.0f} (**{rate / square:.0%}**)",
            f"{1000 * products:.2f} (**{products / step:.0%}**)",
            f"{operations.traffic / 1e6:.1f}",
            f"{traffic / 1e9:,.1f} of {copy / 1e9:,.0f} (**{traffic / copy:.0%}**)",
        ]
    ]


SECTION = Section(
    "The share of the machine's ceiling",
    "A vectorized step against one large square product (float32) and one large copy; on a CPU one thread. Products "
    "only: the step's matrix products with nothing around them, and their share of the step. Traffic: every operation "
    "of a trial's step reading and writing memory, as if there were no cache.",
    (
        "workload",
        "width",
        "step, ms",
        "MFLOP a trial step",
        "GFLOP/s of the square product's",
        "products only, ms",
        "traffic, MB a trial step",
        "GB/s of the copy's",
    ),
    rows,
)

if __name__ == "__main__":
    SECTION.main()
