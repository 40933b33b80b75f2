"""Prints where the time of one vectorized step goes as JSON: kernels, the gaps between them, what computes most.

python scripts/gpu/step_profile.py WORKLOAD WIDTH [--quick]
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Any

import torch
from parts import Parts
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiled

STEPS = 5


def main(name: str, width: int, quick: bool) -> None:
    """Profile a few vectorized steps."""
    parts = Parts.load(name, "tracking=none", quick=quick)
    cuda = torch.cuda.is_available()
    began = time.perf_counter()
    trials = parts.vectorized(width)
    build = time.perf_counter() - began
    seconds = trials.seconds_per_step(5)
    epoch = _epoch_end(trials)
    activities = [ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    with profiled(activities=activities) as run, trials.stack.runner.ready():
        trials.begin_epoch()
        taken = next(trials.stack.batches.steps())
        for _ in range(STEPS):
            trials.train(taken)
        if cuda:
            torch.cuda.synchronize()
    found: dict[str, Any] = {
        "width": width,
        "step, ms": 1e3 * seconds,
        "build a trial, ms": 1e3 * build / width,
        **epoch,
    }
    if cuda:
        spent: Counter[str] = Counter()
        count = 0
        for event in run.events() or ():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                spent[event.name] += event.device_time_total / 1e3 / STEPS
                count += 1
        found |= {"kernels a step": count / STEPS, "kernel time a step, ms": sum(spent.values())}
        found["most, ms"] = {kernel[:90]: round(ms, 4) for kernel, ms in spent.most_common(14)}
    print(json.dumps(found))


def _epoch_end(trials: Any) -> dict[str, float]:
    """Return the milliseconds of an evaluation, and of computing the orders of an epoch."""
    with trials.stack.runner.ready():
        for _ in range(3):
            began = time.perf_counter()
            trials.stack.evaluate()
            evaluation = time.perf_counter() - began
        began = time.perf_counter()
        trials.stack.batches.orders()
        orders = time.perf_counter() - began
        began = time.perf_counter()
        trials.stack._fill(0)
        filled = time.perf_counter() - began
    return {"evaluation, ms": 1e3 * evaluation, "orders, ms": 1e3 * orders, "filling a row, ms": 1e3 * filled}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), "--quick" in sys.argv)
