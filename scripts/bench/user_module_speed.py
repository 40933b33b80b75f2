"""Trials a second of a user module against the built-in MLP of the same shape, both with BatchNorm.

python scripts/bench/user_module_speed.py [--quick]

The user module (see user_module.py) drops by bare calls, has biases before its BatchNorms and logs as it likes;
nothing in it was changed. It takes the built-in digits, and then its own data module. Each side trains 16 rows in one
process with one thread, and trains the same number of whole trials with validation, untracked. Sides
alternate; the ratio is taken per pair.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import replace

import torch
from parts import Parts
from section import Section, median_and_range
from several_processes import our_seconds
from workloads import overrides

from dropsearch.config.command_line import with_user_targets
from dropsearch.config.compose import compose_overrides
from dropsearch.core.records import TrialSpec
from dropsearch.experiment import engines
from dropsearch.experiment.context import build_context
from dropsearch.training.protocols import Engine

WIDTH = 16
ARM = "both"
ARRAY = ("engine=vectorized", f"engine.width={WIDTH}", "engine.processes=1", "trainer.accelerator=cpu", f"arms=[{ARM}]")
USER_MODULE = ("model._target_=user_module.LitMLP", "batchnorm.replace=identity")
SIDES = {
    "built-in MLP": (),
    "user module": USER_MODULE,
    "user module and data": (*USER_MODULE, "data._target_=user_module.Digits"),
}


def loaded(name: str, more: tuple[str, ...], quick: bool) -> tuple[Parts, Engine]:
    """Return a side's trials, and the engine that trains them."""
    own_data = any(word.startswith("data._target_") for word in more)
    words = [
        word for word in overrides(name, "unused") if not (more and word.startswith(("model=", "model.", "arms=")))
    ]
    words = [word for word in words if not (own_data and word.startswith(("data=", "data.")))]
    epochs = ("trainer.max_epochs=1",) if quick else ()
    config = compose_overrides(with_user_targets([*words, *more, *ARRAY, *epochs]))
    parts = Parts(name, build_context(config))
    plan = parts.plan()
    assert plan.engine == "vectorized", plan.reason
    return parts, engines.engine(parts.context, plan, lambda _: None)


def trained(parts: Parts, count: int) -> list[TrialSpec]:
    """Return the trials of a side, in the arm that has BatchNorm."""
    return [replace(spec, arm=ARM) for spec in parts.specs(count)]


def rows(name: str, quick: bool) -> list[list[str]]:
    """Measure a workload."""
    torch.set_num_threads(1)
    trials = WIDTH if quick else 2 * WIDTH
    with ExitStack() as stack:
        sides = {side: loaded(name, more, quick) for side, more in SIDES.items()}
        for parts, engine in sides.values():
            stack.callback(engine.close)
            our_seconds(engine, trained(parts, WIDTH))  # warms up
        turns = [
            {side: trials / our_seconds(engine, trained(parts, trials)) for side, (parts, engine) in sides.items()}
            for _ in range(2 if quick else 5)
        ]
    built_in = next(iter(SIDES))
    return [
        [
            name,
            side,
            f"{statistics.median(turn[side] for turn in turns):.1f}",
            median_and_range([turn[side] / turn[built_in] for turn in turns]) if side != built_in else "",
        ]
        for side in SIDES
    ]


SECTION = Section(
    "A user module",
    f"Whole trials of the same shape with BatchNorm and three dropout sites, {WIDTH} vectorized trials in one process.",
    ("workload", "side", "trials/s", "of the built-in's (range)"),
    rows,
    workloads=("digits-mlp",),
)

if __name__ == "__main__":
    SECTION.main()
