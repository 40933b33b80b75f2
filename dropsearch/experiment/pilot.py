"""Pilots: a few epochs in the engine of the run, and measures of an untrained model, which show how long both take."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from statistics import median

import torch

from dropsearch.analysis.measures import MEASURES
from dropsearch.analysis.measures.protocol import Examples, NotMeasuredError, TrainedModel
from dropsearch.core.preparation import preparing
from dropsearch.core.records import ARMS, EpochMetrics, TrialPhase, TrialResult, TrialSpec
from dropsearch.experiment import engines
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.paces import Pace
from dropsearch.experiment.watchdog import named_if_still
from dropsearch.experiment.winners import MOST, MeasurementData, measurement_data, split_examples
from dropsearch.training.engines import InProcessEngine
from dropsearch.training.planning.equivalence import equivalence_specs
from dropsearch.training.protocols import Engine
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.trainers import batches_in

EPOCHS = 3
"""Number of epochs of a pilot trial; the first one includes costs per trial."""
PILOT_SECONDS = 20.0
"""Maximum duration of a pilot, in seconds."""


class StepTimes:
    """The times of an engine's steps in this process, which calls `cancelled` of its feed before each step.

    Args:
        skipped: Number of first steps that are not timed, since they include one-time costs.
    """

    def __init__(self, clock: Callable[[], float], skipped: int = 0) -> None:
        self._clock, self._skipped = clock, skipped
        self._times: list[float] = []
        self._is_over = False

    def note(self, is_last: bool = False) -> None:
        """Note that a step begins, or that the last one has ended; then nothing more is noted, as engines ask again."""
        if not self._is_over:
            self._times.append(self._clock())
        self._is_over |= is_last

    @property
    def timed(self) -> Sequence[float]:
        """The times at which the timed steps begin, and the last of them ends."""
        return self._times[self._skipped :]

    def per_step(self) -> float | None:
        """Return the seconds of a step; None if none was timed."""
        timed = self.timed
        return (timed[-1] - timed[0]) / (len(timed) - 1) if len(timed) > 1 else None


class PilotFeed:
    """A feed of trials that end after a few epochs; it records only the times of reports.

    Args:
        batches: Number of batches per epoch, if `cancelled` is called at each batch; otherwise 0.
    """

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        most_at_once: int | None,
        epochs: int,
        clock: Callable[[], float],
        batches: int = 0,
    ) -> None:
        self.most_at_once, self._batches = most_at_once, batches
        self.held = False
        self._specs, self._epochs, self._clock = [*specs], epochs, clock
        self._asked: dict[str, float] = {}
        self._spoke: dict[str, list[float]] = {}
        self._open = self._most_open = 0
        self._until = clock() + PILOT_SECONDS
        self._steps = StepTimes(clock)

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials."""
        free = count if self.most_at_once is None else min(count, self.most_at_once - self._open)
        taken, self._specs = self._specs[:free], self._specs[free:]
        self._asked |= {spec.key: self._clock() for spec in taken}
        self._open += len(taken)
        self._most_open = max(self._most_open, self._open)
        return taken

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Record the time of each epoch; end trials after the last one."""
        for spec, _ in reports:
            self._spoke.setdefault(spec.key, []).append(self._clock())
        return [len(self._spoke[spec.key]) >= self._epochs for spec, _ in reports]

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Count ended trials."""
        self._open -= len(results)

    def cancelled(self) -> bool:
        """Return whether the pilot has run long enough."""
        is_over = self._clock() > self._until
        self._steps.note(is_last=is_over)
        return is_over

    def pace(self) -> Pace | None:
        """Return the measured pace; None if no trial ended an epoch."""
        between = [b - a for times in self._spoke.values() for a, b in pairwise(times)]
        first = [times[0] - self._asked[key] for key, times in self._spoke.items()]
        if not first:
            return self._pace_of_batches()
        epoch = median(between or first)
        # Exclude one-time costs of a process at its first trial, such as imports.
        late = first[len(first) // 2 :]
        return Pace(epoch / self._most_open, max(median(late) - epoch, 0.0) / self._most_open, self._most_open)

    def _pace_of_batches(self) -> Pace | None:
        """Return the pace from batches, since an engine in this process calls the feed at each batch."""
        seconds = self._steps.per_step()
        return Pace(self._batches * seconds) if self._batches and seconds else None


def pilot(
    context: ExperimentContext,
    engine: Engine,
    phase: TrialPhase,
    arm: str,
    clock: Callable[[], float] = time.perf_counter,
) -> Pace | None:
    """Train a few epochs of an arm as in a phase of the run, and return the pace."""
    config = context.config
    if phase == "search":
        count, most = config.study.n_trials, engines.most_at_once(config)
    else:
        count, most = engines.confirmed_at_once(config), None
    epochs = min(EPOCHS, config.trainer.max_epochs)
    wanted = 2 if is_sequential(engine) else 1
    count = max(min(count, most or count), wanted)
    specs = [dataclasses.replace(spec, phase=phase) for spec in pilot_specs(context, arm, count)]
    trains = engine.engine if isinstance(engine, InProcessEngine) else engine
    batches = batches_in(context.source.train_loader(0)) if isinstance(trains, SequentialEngine) else 0
    feed = PilotFeed(specs, most, epochs, clock, 0 if batches == math.inf else int(batches))
    engine.run(feed)
    return feed.pace()


def pilot_specs(context: ExperimentContext, arm: str, count: int) -> list[TrialSpec]:
    """Return trials of an arm that differ in their seeds."""
    dropping = ARMS[arm].dropout != "off"
    spec = equivalence_specs(arm, context.sites, dropping=dropping)[0]
    values = context.modules.start if context.params else {}
    rates = spec.rates if dropping else context.rates_off
    return [
        dataclasses.replace(spec, number=n, seed=spec.seed + n, rates=rates, hyperparameters=values)
        for n in range(count)
    ]


def is_sequential(engine: Engine) -> bool:
    """Return whether an engine trains one trial at a time in each process."""
    return "sequential" in engine.description.split(":")[0]


def pilots(
    context: ExperimentContext, engine: Engine, clock: Callable[[], float] = time.perf_counter
) -> dict[TrialPhase, Pace]:
    """Return the pace of search and confirmation: the mean over the first and the last arm."""
    arms = list(dict.fromkeys([context.config.arms[0], context.config.arms[-1]]))
    found: dict[TrialPhase, Pace] = {}
    is_alike = is_sequential(engine) and getattr(context.source, "part_every", 1) == 1
    phases: tuple[TrialPhase, ...] = ("search",) if is_alike else ("search", "confirm")
    for phase in phases:
        with named_if_still(f"measuring the speed of the {phase}"):
            paces = [pace for arm in arms if (pace := pilot(context, engine, phase, arm, clock))]
        if paces:
            epoch, trial = (
                sum(values) / len(paces) for values in zip(*((p.epoch, p.trial) for p in paces), strict=True)
            )
            idle = 1.0 if is_sequential(engine) else 0.5
            found[phase] = Pace(epoch, trial, max(pace.at_once for pace in paces), idle)
    if "search" in found:
        found.setdefault("confirm", found["search"])
    return found


LOOK_SECONDS = 0.5
"""Estimated seconds to measure a model, in runs with fewer than `MANY_MODELS`."""
MANY_MODELS = 20
ONCE_SECONDS = 3.0
"""Seconds; a longer first measurement is not repeated."""
WARMING = 16
"""Number of examples of a measurement that is not timed, since it includes imports and compilation."""


def evidence_pace(
    context: ExperimentContext, clock: Callable[[], float] = time.perf_counter, *, thorough: bool = False
) -> float:
    """Return the seconds to measure one model, from an untrained one; 0 if it cannot be measured.

    Validation examples replace those of the test set, in the same number.

    Args:
        thorough: Measure models of two arms, also in a run with few models.
    """
    config = context.config
    if config.evidence.name == "off":
        return 0.0
    if not thorough and len(config.arms) * config.confirm.seeds < MANY_MODELS:
        return LOOK_SECONDS
    try:
        what = "measuring how long the evidence takes"
        with preparing(what), named_if_still(what):
            return _pace_of_looks(context, clock, 1 + thorough)
    except Exception:  # user modules may raise anything; trained models report the error
        return 0.0


def _pace_of_looks(context: ExperimentContext, clock: Callable[[], float], arms: int) -> float:
    shared = measurement_data(context, opens_test=False)
    last = context.config.arms[-1]
    _look(context, shared, last, clock, WARMING)  # imports and compiles
    found = [_look(context, shared, last, clock)]
    if arms > 1 and found[0] <= ONCE_SECONDS and context.config.arms[0] != last:
        # Arms without dropout have fewer measures.
        found.append(_look(context, shared, context.config.arms[0], clock))
    return sum(found) / len(found)


def _look(
    context: ExperimentContext, shared: MeasurementData, arm: str, clock: Callable[[], float], most: int = MOST
) -> float:
    """Return the duration of the measures on an untrained model of an arm and at most `most` examples, in seconds."""
    (spec,) = pilot_specs(context, arm, 1)
    validation, train = (each.sample(most, 0) for each in split_examples(context, shared, spec))
    held_out = _as_many(validation, min(context.source.sizes.get("test", 0), most))
    module = context.make_module(spec).to(held_out.targets.device).eval()
    model = TrainedModel(spec, module, module, held_out, validation, train, shared.is_image, shared.settings)
    started = clock()
    for measure in MEASURES.values():
        if not measure.of_curve:
            with suppress(NotMeasuredError):
                measure.measure(model)
    return clock() - started


def _as_many(examples: Examples, count: int) -> Examples:
    """Repeat examples up to the number that is measured of a set of this size."""
    return examples.take(torch.arange(min(count, MOST) or len(examples)) % len(examples))
