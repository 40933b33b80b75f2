"""Times plain.py and ours.py alternately and prints the ratio of their run times per pair.

python scripts/bench/compare.py [WORKLOAD ...] [--pairs 5] [-- OVERRIDES ...]

Overrides reach both sides. Runs are whole: all trials, tracked, with what ends the tracker. Start-up (imports, data,
the plan, databases) is shown apart. After each epoch ours also evaluates a part of the training set, which plain does
not: a second ratio is that of ours without it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workloads import WORKLOADS

HERE = Path(__file__).parent

SIDES = (("plain.py",), ("ours.py",), ("ours.py", "--without-part"))


def timed(script: str, name: str, *more: str) -> dict[str, Any]:
    """Run one side in an empty folder and return what it printed of its times."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(HERE / script), name, folder, *more], capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(name: str, pairs: int, more: list[str]) -> str:
    """Return one line of the table."""
    turns = [tuple(timed(script, name, *words, *more) for script, *words in SIDES) for _ in range(pairs)]
    plain, ours, less = ([run["run"] / run["trials"] for run in side] for side in zip(*turns, strict=True))
    startup = [statistics.median(turn[side]["startup"] for turn in turns) for side in (0, 1)]
    return (
        f"| {name} | {statistics.median(plain):.3f} | {statistics.median(ours):.3f} | {_ratio(plain, ours)} | "
        f"{_ratio(plain, less)} | {startup[0]:.1f} / {startup[1]:.1f} | {turns[-1][1]['engine']} |"
    )


def _ratio(plain: list[float], ours: list[float]) -> str:
    each = [p / o for p, o in zip(plain, ours, strict=True)]
    return f"**{statistics.median(each):.1f}** ({min(each):.1f} to {max(each):.1f})"


def print_table(names: Sequence[str], pairs: int, more: Sequence[str] = ()) -> None:
    """Time the workloads and print a line for each."""
    print(
        "| workload | plain, s a trial | ours, s a trial | ratio (range) | ratio without the training part "
        "| start-up, s (plain / ours) | engine |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    for name in names or list(WORKLOADS):
        print(compare(name, pairs, list(more)), flush=True)


def main() -> None:
    """Print the table."""
    options, more = sys.argv[1:], []
    if "--" in options:
        cut = options.index("--")
        options, more = options[:cut], options[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*")
    parser.add_argument("--pairs", type=int, default=5)
    chosen = parser.parse_args(options)
    print_table(chosen.workloads, chosen.pairs, more)


if __name__ == "__main__":
    main()
