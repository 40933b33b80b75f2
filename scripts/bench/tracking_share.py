"""What tracking in MLflow costs: the same search with tracking=mlflow and with tracking=none.

python scripts/bench/tracking_share.py [WORKLOAD ...] [--quick]

Each side is a run of ours.py in an empty folder, sides alternating. Wall and processor seconds are those of the search,
without start-up; processor seconds include the training processes and MLflow's writing thread. The share is what the
run loses without tracking, of the run with it, per pair.
"""

from __future__ import annotations

import statistics

from compare import timed
from section import Section
from workloads import QUICK


def rows(name: str, quick: bool) -> list[list[str]]:
    """Measure a workload."""
    words = QUICK if quick else ()
    turns = [
        (timed("ours.py", name, "tracking=mlflow", *words), timed("ours.py", name, "tracking=none", *words))
        for _ in range(2 if quick else 5)
    ]
    cells = [name, str(turns[0][0]["trials"])]
    for what in ("run", "cpu"):
        tracked, untracked = ([run[what] for run in side] for side in zip(*turns, strict=True))
        shares = [1 - less / more for more, less in zip(tracked, untracked, strict=True)]
        cells += [
            f"{statistics.median(tracked):.2f}",
            f"{statistics.median(untracked):.2f}",
            f"**{statistics.median(shares):.0%}** ({min(shares):.0%} to {max(shares):.0%})",
        ]
    return [cells]


SECTION = Section(
    "Tracking's share",
    "The same search with tracking=mlflow and tracking=none: seconds without start-up, and processor seconds of all "
    "its processes.",
    (
        "workload",
        "trials",
        "wall, mlflow",
        "wall, none",
        "share of wall (range)",
        "CPU, mlflow",
        "CPU, none",
        "share of CPU (range)",
    ),
    rows,
    in_own_process=False,
)

if __name__ == "__main__":
    SECTION.main()
