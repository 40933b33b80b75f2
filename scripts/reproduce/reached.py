"""`reached.py RESULTS PUBLISHED`: whether a run reached a published test accuracy; exit status 1 if it did not.

The arm that counts is the one that validation chose, and its accuracy is the mean over all seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any


def chosen(arms: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the arm whose confirmed winner has the least mean validation loss, and that winner."""

    def validation_loss(name: str) -> float:
        number = arms[name]["winner"]["number"]
        return next(fmean(c["val_loss"]) for c in arms[name]["confirmed"] if c["number"] == number)

    name = min((name for name in arms if arms[name]["winner"]), key=validation_loss)
    return name, arms[name]["winner"]


def main(path: str, published: str) -> int:
    """Print one line and return the exit status."""
    results = json.loads(Path(path).read_text())
    name, winner = chosen(results["arms"])
    low, high = winner["ci95_test_acc"]
    reached = winner["mean_test_acc"] >= float(published)
    print(
        f"{results['model']} on {results['data']}: {100 * winner['mean_test_acc']:.2f} % "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f}, {len(winner['test_acc'])} seeds, arm {name}), "
        f"published {100 * float(published):g} %: {'reached' if reached else 'NOT REACHED'}, "
        f"in {results['seconds']:.0f} s"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
