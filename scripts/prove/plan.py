"""What `task=plan` expects, and what the run then takes: the default run and a sequential module.

    python scripts/prove/plan.py [NAME ...] [--rounds 1]

Prints for each run the expected and the real seconds, from the first line of the phases to the end, and their ratio.
Both are measured on the machine as it is: run it when nothing else runs.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
USER = ("model._target_=user_module.LitNet", "data._target_=user_module.Digits", "trainer.max_epochs=8")
RUNS: Mapping[str, Sequence[str]] = {
    "digits": (),
    "digits, no evidence": ("evidence=off",),
    "user module, sequential": (*USER, "study.n_trials=10", "engine=sequential", "evidence=off"),
    "user module, sequential, evidence": (*USER, "study.n_trials=10", "engine=sequential"),
}
SECONDS = {"h": 3600, "min": 60, "s": 1}
MARGIN = 0.25
"""Largest share by which the real duration may differ from the expected one."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", default=list(RUNS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    near = True
    for name in list(given.runs) * given.rounds:
        with tempfile.TemporaryDirectory() as folder:
            words = [*RUNS[name], f"output_dir={folder}/out"]
            expected = planned(output([*words, "task=plan"])[0])
            took = output(words)[1]
        near &= abs(took / expected - 1) <= MARGIN
        print(f"{name}: planned {expected:.0f} s, took {took:.0f} s, ratio {took / expected:.2f}", flush=True)
    return 0 if near else 1


def output(words: Sequence[str]) -> tuple[str, float]:
    """Run dropsearch; return what it printed, and the seconds since its first phase, or its start if it has none."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dropsearch", *words],
        cwd=EXAMPLES,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    began, lines = time.monotonic(), list[str]()
    for line in process.stdout:
        if line.startswith("[search]"):
            began = time.monotonic()
        lines.append(line)
    if process.wait():
        raise SystemExit("".join(lines))
    return "".join(lines), time.monotonic() - began


def planned(text: str) -> float:
    """Return the seconds of all phases that a plan printed one by one, which is more exact than their rounded sum.

    >>> planned("duration    about 2 min in all: search 42 s, confirm 1 min 5 s, report 10 s")
    117.0
    """
    found = re.search(r"^duration .* in all: (.*(?:\n +.*)*)", text, re.MULTILINE)
    if not found:
        raise SystemExit(f"no duration in the plan:\n{text}")
    return float(sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+) (h|min|s)\b", found[1])))


if __name__ == "__main__":
    sys.exit(main())
