"""Prints the steps of trials a second and the memory of one array as JSON.

python scripts/gpu/one_width.py WORKLOAD WIDTH [--quick]
"""

from __future__ import annotations

import json
import sys

import torch
from parts import Parts, step_seconds


def main(name: str, width: int, quick: bool) -> None:
    """Measure one width; where memory ends, half of it."""
    parts = Parts.load(name, "tracking=none", quick=quick)
    while True:
        try:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            array = parts.array(width)
            seconds = step_seconds(array, 0.2)
            break
        except torch.cuda.OutOfMemoryError:
            array = None
            width //= 2
            torch.cuda.empty_cache()
            if not width:
                raise
    peak = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    found = {"width": width, "step, ms": 1e3 * seconds, "trial steps/s": width / seconds, "reserved, MiB": peak >> 20}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), "--quick" in sys.argv)
