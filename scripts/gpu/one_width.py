"""Prints the steps of trials a second and the memory of one width as JSON.

python scripts/gpu/one_width.py WORKLOAD WIDTH [CONVOLUTIONS] [--quick]
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import torch
from parts import Parts, SpecFeed, step_seconds

from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trials import VectorizedTrials


def main(name: str, width: int, convolutions: Any, quick: bool) -> None:
    """Measure one width; where memory ends, half of it."""
    parts = Parts.load(name, "tracking=none", quick=quick)
    settings = dataclasses.replace(parts.settings, convolutions=convolutions)
    while True:
        try:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            trials = VectorizedTrials(
                RowSource(parts.make_module, parts.source, settings, SpecFeed(parts.specs(width))), width
            )
            seconds = step_seconds(trials, 0.2)
            break
        except torch.cuda.OutOfMemoryError:
            trials = None
            width //= 2
            torch.cuda.empty_cache()
            if not width:
                raise
    peak = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    found = {"width": width, "step, ms": 1e3 * seconds, "trial steps/s": width / seconds, "reserved, MiB": peak >> 20}
    print(json.dumps(found))


if __name__ == "__main__":
    name, width, *more = (word for word in sys.argv[1:] if word != "--quick")
    main(name, int(width), more[0] if more else "grouped", "--quick" in sys.argv)
