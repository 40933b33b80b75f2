"""Whether the measured choice of processes and threads is the faster one, in one run.

python scripts/bench/threads.py [KIND ...] [--rounds 4]

A KIND is a key of `KINDS`. `dropsearch.experiment.layout` chooses first. Then whole trials of one epoch are trained by
a process a core and by one process with all cores, in alternating order, and the ratio of the durations of a round is
taken. All kinds take about three minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

os.environ.pop("OMP_NUM_THREADS", None)  # it limits the number of threads that are compared

import torch
from given_trials import SpecFeed

from dropsearch.config.compose import compose_overrides
from dropsearch.core.processes import cores
from dropsearch.experiment import engines
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.layout import described_layout, with_layout
from dropsearch.experiment.pilot import pilot_specs
from dropsearch.training.planning.plan import Plan

SEQUENTIAL, VECTORIZED = Plan("sequential", 1, "asked"), Plan("vectorized", 8, "asked")
KINDS: dict[str, tuple[Plan, int, Sequence[str]]] = {
    "tiny": (SEQUENTIAL, 16, ("model.hidden=[16,16]", "data.batch_size=32")),
    "tiny, vectorized": (VECTORIZED, 64, ("model.hidden=[16,16]", "data.batch_size=32")),
    "large": (SEQUENTIAL, 4, ("model.hidden=[2000,2000]", "data.batch_size=256")),
    "large, vectorized": (replace(VECTORIZED, width=2), 4, ("model.hidden=[2000,2000]", "data.batch_size=256")),
}
"""By kind: the plan, the number of trials, and the model.

Small matrices are too small for several threads; of large ones each process needs its own in the caches.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="KIND")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for kind in given.kinds:
        measure(kind, given.rounds)


def measure(kind: str, rounds: int) -> None:
    """Print the choice for a kind, and the ratio of both ways."""
    plan, trials, words = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        more = ["model=mlp", "tracking=none", "study.n_trials=9999", "trainer.max_epochs=1", f"output_dir={folder}"]
        context = build_context(compose_overrides([*words, *more]))
    chosen = described_layout(*with_layout(context, plan))
    ways, ratios = [(cores(), 1), (1, cores())], []
    for number in range(rounds):
        seconds = {way: trained(context, plan, *way, trials) for way in ways[:: 1 if number % 2 else -1]}
        ratios.append(seconds[ways[1]] / seconds[ways[0]])
    between = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{kind}: {chosen}; whole trials, one process / {cores()} processes: {between}", flush=True)


def trained(context: ExperimentContext, plan: Plan, processes: int, threads: int, trials: int) -> float:
    """Return the seconds of some trials, without the start of processes."""
    torch.set_num_threads(threads)
    context = replace(context, processes=processes, threads_each=threads)
    specs = pilot_specs(context, context.config.arms[-1], trials)
    with closing(engines.engine(context, plan, lambda _: None)) as engine:
        engine.run(SpecFeed(specs[: processes * plan.width]))  # one-time costs
        started = time.perf_counter()
        engine.run(SpecFeed(specs))
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
