"""The raw serial loop (see raw.py) on whole trials: prints {"run": s, "trials": n}.

python scripts/bench/raw_trials.py WORKLOAD FOLDER [OVERRIDES ...]
"""

from __future__ import annotations

import json
import sys
import time

from parts import Parts
from raw import RawLoop


def main(name: str, *more: str) -> None:
    """Train the workload's trials, with an evaluation after each epoch."""
    parts = Parts.load(name, *more)
    loop, specs = RawLoop(parts), parts.specs(parts.config.study.n_trials + 1)
    for number, spec in enumerate(specs):
        if number == 1:  # the first warms up
            started = time.perf_counter()
        loop.begin(spec)
        for _ in range(parts.epochs):
            loop.epoch()
            loop.evaluate()
    print(json.dumps({"run": time.perf_counter() - started, "trials": len(specs) - 1}))


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[3:])
