"""Prove that nothing finished is ever lost: kill -9 at random moments of running studies, then audit them.

    python scripts/prove/kill.py [--kills 200] [--seed 0]

Each study is killed, continued and killed again, by the clock and by counting its writes, until it has come to its
end; then Optuna's and MLflow's own means must find each trial exactly once, and unchanged since it first ended.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.experiment.forked_runs import RunForker
from tests.experiment.kill_campaign import Campaign  # the checkout's tests

PLANS = (
    # share of the kills, storage, how trials are trained, about as many seconds as a run takes
    (0.4, "", ("engine=sequential",), 1.6),
    (0.3, "sqlite:///FOLDER/study.db", ("engine=sequential",), 2.0),
    (0.15, "", ("engine=vectorized", "engine.processes=1"), 2.5),
    (0.15, "", ("engine=vectorized", "engine.processes=2"), 3.0),
)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--kills", type=int, default=200)
    given.add_argument("--seed", type=int, default=0)
    wanted = given.parse_args()
    warnings.simplefilter("ignore")  # MLflow's and Optuna's own, about themselves
    started, kills, endings = time.monotonic(), 0, 0
    with RunForker() as run_forker, tempfile.TemporaryDirectory(prefix="dropsearch-kill-") as folder:
        for number, (share, storage, overrides, span) in enumerate(PLANS):
            campaign = Campaign(
                run_forker, Path(folder) / str(number), storage, wanted.seed + number, overrides, span=span, say=print
            )
            campaign.run(round(share * wanted.kills))
            kills, endings = kills + campaign.kills, endings + campaign.endings
            print(f"{' '.join(overrides)}, {storage or 'journal'}: kills by phase {dict(campaign.phases)}", flush=True)
    print(
        f"{kills} kills (seed {wanted.seed}), {endings} studies came to their end: every trial that had ended is there "
        f"once, unchanged, in Optuna and in MLflow ({time.monotonic() - started:.0f} s)"
    )


if __name__ == "__main__":
    main()
