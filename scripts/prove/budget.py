"""A budget is kept: the default run, MNIST-1D and a module of the user's own, each in a process of its own.

    python scripts/prove/budget.py [--budget 5m] [digits mnist1d user]

Prints for each what it took in seconds, from the start of the program to its end, and as a share of the budget.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dropsearch.config.budget import parsed

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNS = {
    "digits": (),
    "mnist1d": ("data=mnist1d",),
    "user": ("model._target_=user_module.LitNet", "data._target_=user_module.Digits", "trainer.max_epochs=8"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("runs", nargs="*", help=f"of {', '.join(RUNS)}")
    given = parser.parse_args()
    budget = parsed(given.budget)
    if budget is None or not budget.seconds:
        parser.error(f"--budget must be a time, got {given.budget}")
    kept = True
    for name in given.runs or RUNS:
        with tempfile.TemporaryDirectory() as folder:
            words = [*RUNS[name], f"budget={given.budget}", f"output_dir={folder}/out"]
            started = time.monotonic()
            subprocess.run([sys.executable, "-m", "dropsearch", *words], check=True, cwd=EXAMPLES)
            took = time.monotonic() - started
            found = json.loads((Path(folder) / "out" / "results.json").read_text())
        share = took / budget.seconds
        kept &= share <= 1.1
        bought = [note for note in found["notes"] if note.startswith("the budget")]
        print(f"{name}: {took:.0f} s of {budget.seconds:.0f} ({100 * share:.0f} %); {'; '.join(bought)}", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
