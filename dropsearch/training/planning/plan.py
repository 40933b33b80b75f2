"""Selects the engine and its width by checking equivalence and measuring throughput and memory."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dropsearch.core.errors import InputError
from dropsearch.core.global_state import keeping_generators
from dropsearch.core.records import TrialSpec
from dropsearch.core.user_errors import described
from dropsearch.dropout.trial_control import TrialControl
from dropsearch.training.adapters.layers import build_in_hooks
from dropsearch.training.logged_steps import call_step, captured_logs, on_device_of, runs_aside, set_to_train
from dropsearch.training.planning.equivalence import check_equivalence
from dropsearch.training.planning.memory import Memory, free_memory, measure_memory
from dropsearch.training.planning.throughput import Throughput, measure_down, measure_up
from dropsearch.training.protocols import Convolutions, DataSource, TrainerSettings, device_of
from dropsearch.training.sequential import ModuleFactory
from dropsearch.training.trainers import bare_trainer
from dropsearch.training.vectorized.row_optimizers import configure_optimizer
from dropsearch.training.vectorized.row_trainer import RowTrainer

MAX_WIDTH = 32
"""Maximum width on a CPU. TPE learns from completed trials only, so it proposes worse values if more train at once."""

MAX_WIDTH_ON_GPU = 512
"""Maximum width on a GPU, which is idle with few rows; `Feed.most_at_once` limits it for adaptive samplers."""
LIGHTNING_SECONDS = 4e-4
"""Overhead of a Lightning Trainer per training step with one logged value, measured with a trivial module."""

Pair = tuple[TrialSpec, TrialSpec]


@dataclass(frozen=True)
class Plan:
    """The selected engine and width, with the reason and the measurements."""

    engine: str
    width: int
    reason: str
    rates: dict[int, float] = dataclasses.field(default_factory=dict)
    """Trial steps per second in one process, by measured width."""
    memory: Memory | None = None
    convolutions: Convolutions = "grouped"
    speed: float = 0.0
    """Trial steps per second in one process at the width of the search, 0 if not measured."""
    further_reasons: tuple[str, ...] = ()
    """What else keeps trials from training vectorized, beside `reason`."""
    layouts: dict[str, float] = dataclasses.field(default_factory=dict)
    """Trial steps per second of all processes, by measured numbers of processes and threads."""
    gain_of_holding_once: float = 0.0
    """Speedup of rows that share their frozen parts; 0 if there are none or it is not measured."""


@keeping_generators()
def make_plan(
    make_module: ModuleFactory,
    data: DataSource,
    settings: TrainerSettings,
    pairs: Sequence[Pair],
    *,
    engine: str,
    width: int | None,
    processes: int = 1,
    unstackable: str = "",
    max_open: int | None = None,
) -> Plan:
    """Select how to train the trials of a study.

    Args:
        make_module: Builds a trial's module.
        data: Data in memory.
        settings: Training settings shared by all trials.
        pairs: Two trials of each arm, to compare vectorized with sequential training.
        engine: auto, vectorized or sequential.
        width: Number of trials to train at once; None to measure.
        processes: Number of processes that share the memory.
        unstackable: A searched hyperparameter whose values cannot share stacked tensors and hardly repeat, so that the
            search trains one trial at a time; empty if there is none.
        max_open: Maximum number of open trials; None if unknown.

    Raises:
        InputError: `engine` is vectorized, but the module cannot be trained vectorized with the same results.
    """
    if engine == "sequential":
        return Plan("sequential", 1, "engine=sequential")
    for pair in pairs:
        difference = check_equivalence(make_module, data, settings, pair)
        if difference and engine == "vectorized":
            raise InputError(
                f"engine=vectorized needs a module with the same results in sequential training, but {difference}: "
                "use engine=auto or engine=sequential"
            )
        if difference:
            return Plan("sequential", 1, difference)
    # Measure the most expensive trial: one with masks and BatchNorm (the last arm), and with the most parameters among
    # the searched hyperparameters. A width that fits this trial fits all.
    costliest = max(reversed(pairs), key=lambda pair: (len(pair[0].rates), _parameters(make_module, pair[0])))[0]
    throughput = Throughput(make_module, data, settings, costliest)
    most_rows = getattr(data, "most_rows", None)
    if width is not None and most_rows is not None and width > most_rows:
        raise InputError(
            f"engine.width must be at most {most_rows}, got {width}: each row has its own worker processes; "
            "lower num_workers"
        )
    try:
        if width is not None:
            reason = f"engine.width={width}{_one_at_a_time(unstackable)}"
            return Plan("vectorized", width, reason, convolutions=throughput.convolutions(width))
        memory = measure_memory(throughput.make_trials)
        most = min(max_open or MAX_WIDTH_ON_GPU, most_rows or MAX_WIDTH_ON_GPU)
        fitting = min(memory.max_width(free_memory(throughput.device, processes)), most)
        if throughput.on_gpu:
            rates = measure_down(throughput.rate, min(MAX_WIDTH_ON_GPU, fitting), throughput.budget)
        else:
            rates = measure_up(throughput.rate, min(MAX_WIDTH, fitting), throughput.budget)
        sequential_rate = _sequential_rate(make_module, data, settings, costliest)
    except Exception as error:  # the equivalence check ran in float64 on the CPU; other devices support less
        if engine == "vectorized":
            raise InputError(
                f"engine=vectorized cannot train this module ({described(error)}): use engine=auto"
            ) from error
        return Plan("sequential", 1, described(error))
    fastest = max(rates, key=lambda w: rates[w])
    if engine == "auto" and sequential_rate > rates[fastest]:
        reason = (
            f"faster than vectorized ({sequential_rate:.0f} instead of {rates[fastest]:.0f} trial steps per second)"
        )
        return Plan("sequential", 1, reason, rates, memory, speed=sequential_rate)
    speed = rates[1] if unstackable else rates[fastest]
    reason = f"measured{_one_at_a_time(unstackable)}"
    gain = _gain_of_holding_once(throughput, memory, fastest, processes)
    return Plan(
        "vectorized",
        fastest,
        reason,
        rates,
        memory,
        throughput.convolutions(fastest),
        speed,
        gain_of_holding_once=gain,
    )


def _gain_of_holding_once(throughput: Throughput, memory: Memory, width: int, processes: int) -> float:
    """Measure the speedup of sharing frozen parts, if copies of them fit into memory."""
    copies = dataclasses.replace(memory, per_row=memory.per_row + memory.held_once)
    if not memory.holds_parts_once or copies.max_width(free_memory(throughput.device, processes)) < width:
        return 0.0
    try:
        return throughput.gain_of_holding_once(width)
    except torch.cuda.OutOfMemoryError:
        return 0.0


def _one_at_a_time(unstackable: str) -> str:
    # Confirmation still trains several at once: its trials differ in their seeds only.
    if not unstackable:
        return ""
    return f"; the search trains one trial at a time, since values of {unstackable} cannot share stacked tensors"


def _parameters(make_module: ModuleFactory, spec: TrialSpec) -> int:
    """Return the number of parameters of a trial's module, or 0 if no hyperparameter can change it."""
    return sum(parameter.numel() for parameter in make_module(spec).parameters()) if spec.hyperparameters else 0


def _sequential_rate(make_module: ModuleFactory, data: DataSource, settings: TrainerSettings, spec: TrialSpec) -> float:
    """Return the steps per second of one trial in sequential training, with the overhead of Lightning."""
    loader = data.train_loader(spec.seed)
    device = device_of(data)
    module = set_to_train(make_module(spec))
    module.trainer = bare_trainer(loader, max_epochs=1)
    if not runs_aside(module):
        module.trainer = RowTrainer(module.trainer, module, data, loader)  # type: ignore[assignment]
        build_in_hooks(module)
    module.to(device)
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16-mixed")
    control, (optimizer, _) = TrialControl(module, spec.rates, spec.seed), configure_optimizer(module)
    times = []
    with captured_logs(module), control.watching():
        batches = itertools.chain.from_iterable(itertools.repeat(loader))  # repeated epochs
        for step in range(3):
            started = time.perf_counter()
            batch = on_device_of(module, next(batches))
            with mixed, control.training_step(step):
                result: Any = call_step(module.training_step, batch, step)
            loss = result["loss"] if isinstance(result, dict) else result
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss.detach())  # synchronizes with a GPU
            times.append(time.perf_counter() - started)
    return 1 / (min(times) + LIGHTNING_SECONDS)
