"""Which engine trains, how wide, and why: proven and measured, not assumed."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Trainer

from dropsearch._compat.lightning import one_process
from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from dropsearch.dropout.control import TrialControl
from dropsearch.training.logged_steps import captured_logs
from dropsearch.training.modes import set_to_train
from dropsearch.training.planning.equivalence import proof
from dropsearch.training.planning.memory import Memory, free_memory, measured
from dropsearch.training.planning.throughput import Throughput, widest, widest_from_above
from dropsearch.training.protocols import Convolutions, RowDataSource, TrainerSettings
from dropsearch.training.sequential import ModuleFactory, describe_error, quiet_lightning
from dropsearch.training.trainers import with_steps
from dropsearch.training.vectorized.row_optimizers import configured

WIDEST = 32
"""Wider arrays would have TPE propose too much from too little: it learns from trials that ended."""

WIDEST_ON_GPU = 512
"""The same on a GPU, which a few rows leave idle; `Feed.most_at_once` still bounds a sampler that learns."""
LIGHTNING_SECONDS = 4e-4
"""What a Trainer with one logged value adds to a step, as measured with a net that costs nothing."""

Pair = tuple[TrialSpec, TrialSpec]


@dataclass(frozen=True)
class Plan:
    """Which engine, how wide, and the reason."""

    engine: str
    """array or alone."""
    width: int
    """How many trials train at once in a process."""
    reason: str
    rates: dict[int, float] = dataclasses.field(default_factory=dict)
    """Steps of trials a second in one process, by the widths that were measured."""
    memory: Memory | None = None
    """What arrays take in one process, None where nothing was measured."""
    convolutions: Convolutions = "grouped"
    """How an array runs a convolution: grouped where nothing was measured."""
    speed: float = 0.0
    """Steps of trials a second in one process as the search has them, 0 where nothing was measured."""


def make_plan(
    make_module: ModuleFactory,
    data: RowDataSource,
    settings: TrainerSettings,
    pairs: Sequence[Pair],
    *,
    engine: str,
    width: int | None,
    processes: int = 1,
    apart: str = "",
    most_rows: int | None = None,
) -> Plan:
    """Choose how trials are trained.

    Args:
        make_module: Builds a trial's module.
        data: Where batches come from.
        settings: What all trials share.
        pairs: Two trials of each arm, whose training as an array is compared with training alone.
        engine: auto, array or alone.
        width: How many trials at once; None to measure.
        processes: How many processes share the memory.
        apart: What is searched that makes each trial of the search its own program, so that an array has no second
            row there; empty where nothing does.
        most_rows: How many trials are ever open at once; None where that is not known.

    Raises:
        InputError: An array is asked for, and what it gives differs from trials alone.
    """
    if engine == "sequential":
        return Plan("sequential", 1, "engine=sequential")
    for pair in pairs:
        difference = proof(make_module, data, settings, pair)
        if difference and engine == "vectorized":
            raise InputError(
                f"engine=vectorized needs a module that trains in an array as it does alone, but {difference}: "
                "use engine=auto or engine=sequential"
            )
        if difference:
            return Plan("sequential", 1, difference)
    # The arm with the most to do: with masks to draw and, where there is one, BatchNorm, which stands last. Of the
    # programs that trials may have, the one with most parameters: what fits then always fits.
    costliest = max(reversed(pairs), key=lambda pair: (len(pair[0].rates), _parameters(make_module, pair[0])))[0]
    throughput = Throughput(make_module, data, settings, costliest)
    try:
        if width is not None:
            reason = f"engine.width={width}{_narrow(apart)}"
            return Plan("vectorized", width, reason, convolutions=throughput.convolutions(width))
        memory = measured(throughput.array)
        fitting = min(memory.widest(free_memory(throughput.device, processes)), most_rows or WIDEST_ON_GPU)
        if throughput.on_gpu:
            rates = widest_from_above(throughput.rate, min(WIDEST_ON_GPU, fitting), throughput.budget)
        else:
            rates = widest(throughput.rate, min(WIDEST, fitting), throughput.budget)
        alone = _rate_alone(make_module, data, settings, costliest)
    except Exception as error:  # the proof ran on a CPU in float64: elsewhere more may be impossible
        if engine == "vectorized":
            raise InputError(
                f"engine=vectorized cannot train this module ({describe_error(error)}): use engine=auto"
            ) from error
        return Plan("sequential", 1, describe_error(error))
    chosen = max(rates, key=lambda w: rates[w])
    if engine == "auto" and alone > rates[chosen]:
        reason = f"an array gains nothing here ({rates[chosen]:.0f} steps/s for {alone:.0f})"
        return Plan("sequential", 1, reason, rates, memory, speed=alone)
    speed = rates[1] if apart else rates[chosen]
    return Plan(
        "vectorized", chosen, f"measured{_narrow(apart)}", rates, memory, throughput.convolutions(chosen), speed
    )


def _narrow(apart: str) -> str:
    # The retrainings of a confirmation, which differ in their seeds alone, still are rows of one array.
    return f"; the search has arrays of one row, for {apart} makes each trial its own program" if apart else ""


def _parameters(make_module: ModuleFactory, spec: TrialSpec) -> int:
    """Return how many numbers a trial trains where trials may differ in that, else 0."""
    return sum(parameter.numel() for parameter in make_module(spec).parameters()) if spec.hyperparameters else 0


def _rate_alone(make_module: ModuleFactory, data: RowDataSource, settings: TrainerSettings, spec: TrialSpec) -> float:
    """Return the steps a second of one trial trained plainly, with what Lightning adds to each."""
    loader = data.train_loader(spec.seed)
    device = loader.tensors[0].device
    module = set_to_train(make_module(spec).to(device))
    with quiet_lightning():
        module.trainer = with_steps(
            Trainer(max_epochs=1, accelerator="cpu", barebones=True, plugins=[one_process()]), len(loader)
        )
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16-mixed")
    control, (optimizer, _) = TrialControl(module, spec.rates, spec.seed), configured(module)
    times = []
    with captured_logs(module), control.watching():
        for step, batch in enumerate(itertools.islice(itertools.cycle(loader), 3)):
            started = time.perf_counter()
            with mixed, control.training_step(step):
                answer: Any = module.training_step(batch, step)
            loss = answer["loss"] if isinstance(answer, dict) else answer
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss.detach())  # waits for a GPU
            times.append(time.perf_counter() - started)
    return 1 / (min(times) + LIGHTNING_SECONDS)
