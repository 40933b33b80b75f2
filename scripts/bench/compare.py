"""Times plain.py and ours.py in turn and prints the ratio of their run times, pair by pair.

python scripts/bench/compare.py [WORKLOAD ...] [--pairs 5] [-- OVERRIDES ...]

Runs are whole: all trials, tracked, with what ends the tracker. Start-up (imports, data, the plan, databases)
is shown apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from workloads import WORKLOADS

HERE = Path(__file__).parent


def timed(script: str, name: str, *more: str) -> dict[str, float]:
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
    sides = [(timed("plain.py", name), timed("ours.py", name, *more)) for _ in range(pairs)]
    each = [(plain["run"] / plain["trials"]) / (ours["run"] / ours["trials"]) for plain, ours in sides]
    plain_trial = statistics.median(plain["run"] / plain["trials"] for plain, _ in sides)
    ours_trial = statistics.median(ours["run"] / ours["trials"] for _, ours in sides)
    startup = (
        statistics.median(plain["startup"] for plain, _ in sides),
        statistics.median(o["startup"] for _, o in sides),
    )
    return (
        f"| {name} | {plain_trial:.3f} | {ours_trial:.3f} | **{statistics.median(each):.1f}** "
        f"({min(each):.1f} to {max(each):.1f}) | {startup[0]:.1f} / {startup[1]:.1f} | {sides[-1][1]['engine']} |"
    )


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
    print("| workload | plain, s a trial | ours, s a trial | ratio (range) | start-up, s (plain / ours) | engine |")
    print("|---|---|---|---|---|---|")
    for name in chosen.workloads or list(WORKLOADS):
        print(compare(name, chosen.pairs, more), flush=True)


if __name__ == "__main__":
    main()
