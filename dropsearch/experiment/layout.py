"""How many processes train, with how many torch threads each: as configured, or the faster of two measured ways."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection

import torch

from dropsearch.config.schema import Config
from dropsearch.core.global_state import torch_threads
from dropsearch.core.processes import cores
from dropsearch.core.records import TrialSpec
from dropsearch.experiment import engines
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.interruption import Interruption
from dropsearch.experiment.pilot import StepTimes, pilot_specs
from dropsearch.experiment.watchdog import named_if_still
from dropsearch.training.planning.plan import Plan
from dropsearch.training.protocols import Engine, GivenTrials
from dropsearch.training.trainers import batches_in
from dropsearch.training.worker_forks import Flag, WorkerForks

SECONDS, MOST_SECONDS = 0.7, 6.0
"""How long a way of training is measured once it runs, and at most with its start."""
FIRST_STEPS = 3
"""Number of steps that are not timed, since they include one-time costs."""
SHORT_RUN, FEW_STEPS = 30.0, 300
"""Expected seconds of a search below which nothing is compared, and number of steps below which nothing is measured."""
FASTER = 1.1
"""Least speedup by which one process with all threads replaces a process a core, as measurements vary."""


def with_layout(context: ExperimentContext, plan: Plan) -> tuple[ExperimentContext, Plan]:
    """Choose processes and threads; return the context with them, and the plan with the measured speeds.

    Both are measured: `context.processes` processes of one thread, and one process with all cores. Torch uses the
    chosen number of threads in this process, too, while trials train in it.
    """
    threads, rates = _chosen(context, plan)
    processes = threads.processes
    torch.set_num_threads(threads.each)
    measured = {str(way): rate for way, rate in rates.items()}
    speed = rates[threads] / processes if threads in rates else plan.speed
    context = dataclasses.replace(context, processes=processes, threads_each=threads.each)
    return context, dataclasses.replace(plan, speed=speed, layouts=measured)


def described_layout(context: ExperimentContext, plan: Plan) -> str:
    """Return the numbers of processes and threads in one line, with the speeds by which they were chosen."""
    chosen = str(Way(context.processes, context.threads_each))
    if not plan.layouts:
        return chosen
    others = "".join(f"; {way}: {rate:,.0f}" for way, rate in plan.layouts.items() if way != chosen)
    own = f"{plan.layouts[chosen]:,.0f}" if chosen in plan.layouts else "not measured"
    return f"{chosen} ({own} trial steps per second{others})"


@dataclasses.dataclass(frozen=True)
class Way:
    """A number of processes, and of threads of each."""

    processes: int
    each: int

    def __str__(self) -> str:
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return f"{processes} x {'1 thread' if self.each == 1 else f'{self.each} threads'}"


def _chosen(context: ExperimentContext, plan: Plan) -> tuple[Way, dict[Way, float]]:
    config, usable = context.config, cores()
    if (given := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        usable = min(usable, max(int(given), 1))
    asked = config.engine.threads
    if asked != "auto":
        each = int(asked)
        fitting = max(cores() // each, 1)
        is_given = config.engine.processes != "auto" or context.device.type == "cuda"
        return Way(context.processes if is_given else min(context.processes, fitting), each), {}
    usual = Way(context.processes, 1 if context.processes > 1 else torch.get_num_threads())
    others, steps = _others(context, usual, usable), _steps(context)
    if not others or steps < FEW_STEPS or (plan.speed and _is_short(steps, plan.speed * usual.processes)):
        return usual, {}
    make = partial(engines.one_engine, context, plan, lambda _: None)
    specs = pilot_specs(context, config.arms[-1], plan.width)
    with named_if_still("measuring the speed of processes and threads"):
        rates = {usual: _rate(make, specs, usual)}
        if not rates[usual] or _is_short(steps, rates[usual]):
            return usual, {}
        rates |= {way: _rate(make, specs, way) for way in others}
    best = max(others, key=lambda way: rates[way])
    return (best if rates[best] > FASTER * rates[usual] else usual), {way: rate for way, rate in rates.items() if rate}


def _is_short(steps: float, rate: float) -> bool:
    return steps / rate < SHORT_RUN


def _others(context: ExperimentContext, usual: Way, usable: int) -> list[Way]:
    """Return the ways to compare with the usual one: none if workers are elsewhere, or only one core is there."""
    config = context.config
    is_here = context.device.type == "cpu" and config.cluster.name == "none" and not context.threads
    callbacks = context.settings.trainer().get("callbacks")  # they would see trials that do not exist
    if usable == 1 or not is_here or callbacks or (usual.processes > 1 and config.engine.processes != "auto"):
        return []
    return [way for way in (Way(1, usable), Way(1, 1)) if way != usual and (way.each > 1 or usual.processes == 1)]


def _steps(context: ExperimentContext) -> float:
    """Return the number of training steps of the searches, of all trials; infinity if unknown."""
    config: Config = context.config
    batches = batches_in(context.source.train_loader(0))
    return batches * config.trainer.max_epochs * config.study.n_trials * len(config.arms)


def _rate(make: Callable[[], Engine], specs: Sequence[TrialSpec], way: Way) -> float:
    """Return the trial steps per second of all processes together; 0 if nothing could be measured.

    Raises:
        KeyboardInterrupt: The user asked to stop; an engine alone would end its trial and return.
    """
    interruption = Interruption()
    with interruption.listening():
        rate = _rate_of(make, specs, way, interruption)
    if interruption.requested:
        raise KeyboardInterrupt
    return rate


def _rate_of(
    make: Callable[[], Engine], specs: Sequence[TrialSpec], way: Way, interruption: Callable[[], bool]
) -> float:
    if way.processes == 1:
        with torch_threads(way.each):
            return _measured(make(), specs, interruption)
    stopped = Flag()
    forks = WorkerForks(lambda pipe: _report(make, specs, pipe, stopped.is_set))
    try:
        pipes = [forks.fork()[1] for _ in range(way.processes)]
        found = [_received(pipe, interruption) for pipe in pipes]
    finally:
        stopped.set()
        forks.close()
    return sum(found) if all(found) else 0.0


def _report(
    make: Callable[[], Engine], specs: Sequence[TrialSpec], pipe: Connection, stopped: Callable[[], bool]
) -> None:
    torch.set_num_threads(1)
    pipe.send(_measured(make(), specs, stopped))


def _received(pipe: Connection, interruption: Callable[[], bool]) -> float:
    until = time.monotonic() + 2 * MOST_SECONDS
    try:
        while not interruption() and time.monotonic() < until:
            if pipe.poll(0.05):
                return pipe.recv()
    except EOFError:  # the process ended
        pass
    return 0.0


def _measured(engine: Engine, specs: Sequence[TrialSpec], interruption: Callable[[], bool]) -> float:
    feed = _StepFeed(specs, interruption)
    engine.run(feed)
    seconds = feed.steps.per_step()
    return len(specs) / seconds if seconds else 0.0


class _StepFeed(GivenTrials):
    """A feed of trials that ends after some steps, which it times."""

    def __init__(self, specs: Sequence[TrialSpec], interruption: Callable[[], bool]) -> None:
        super().__init__(specs)
        self._interruption = interruption
        self.most_at_once: int | None = len(specs)
        self._until = time.perf_counter() + MOST_SECONDS
        self.steps = StepTimes(time.perf_counter, FIRST_STEPS)

    def cancelled(self) -> bool:
        """Note the time of a step; return whether enough are timed."""
        now, timed = time.perf_counter(), self.steps.timed
        is_enough = len(timed) > 0 and now - timed[0] > SECONDS
        is_over = is_enough or self._interruption() or now > self._until
        if not self._left:
            self.steps.note(is_last=is_over)
        return is_over
