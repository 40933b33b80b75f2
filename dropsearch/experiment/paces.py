"""Durations of the parts of a run, measured on a few epochs and one model, or estimated."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch

from dropsearch.analysis.measures import MEASURES
from dropsearch.analysis.measures.protocol import Examples, NotMeasuredError, TrainedModel
from dropsearch.config.budget import is_time
from dropsearch.config.schema import Config
from dropsearch.core.records import ARMS, EpochMetrics, TrialPhase, TrialResult, TrialSpec
from dropsearch.experiment import engines
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.standstill import named_if_still
from dropsearch.experiment.winners import MOST, MeasurementData, measurement_data, split_examples
from dropsearch.study.pruners import PRUNERS
from dropsearch.study.trial_clock import TrialClock
from dropsearch.training.engines import InProcessEngine
from dropsearch.training.planning.equivalence import equivalence_specs
from dropsearch.training.planning.plan import Plan
from dropsearch.training.protocols import Engine
from dropsearch.training.sequential import SequentialEngine

EPOCHS = 3
"""Number of epochs of a pilot trial; the first one includes costs per trial."""
PILOT_SECONDS = 20.0
"""Maximum duration of a pilot, in seconds."""
EVALUATION = 1.3
"""Estimated ratio of an epoch's duration, with two evaluations, to that of its steps; used without a pilot."""
UNITS = 20
"""Ticks of a trial's full duration in `clock_length`."""
MOST_TRIALS = 200
"""Maximum number of trials that `clock_length` simulates."""
REPORT_SECONDS = 10.0
"""Seconds for figures and reports."""
TRACKING_SECONDS = 3.0
"""Seconds for the tracker to finish writing."""
LOOK_SECONDS = 0.5
"""Estimated seconds to measure a model, in runs with fewer than `MANY_MODELS`."""
MANY_MODELS = 20
ONCE_SECONDS = 3.0
"""Seconds; a longer first measurement is not repeated."""
WARMING = 16
"""Number of examples of a measurement that is not timed, since it includes imports and compilation."""
TEST_SHARE = 0.1
"""Ratio of the duration of a test to that of the measures."""


@dataclass(frozen=True)
class Pace:
    """Durations of training in seconds, with all simultaneous trials."""

    epoch: float
    trial: float = 0.0
    """Seconds per trial in addition to its epochs."""
    at_once: int = 1
    """Number of simultaneous trials."""
    idle: float = 0.5
    """Duration of a step with empty rows, between one that takes no time (0) and one of full rows (1)."""

    def of(self, epochs: float, length: float = 1.0) -> float:
        """Return the seconds per epoch, including the share of costs per trial.

        Args:
            epochs: Number of epochs of each trial.
            length: Number of steps relative to that with full rows; see `waves` and `clock_length`.
        """
        return (self.epoch + self.trial / max(epochs, 1.0)) * (1 + self.idle * (length - 1))


def waves(trials: int, at_once: int) -> float:
    """Return the length of a stage whose last trials leave rows empty, relative to full rows."""
    return -(-trials // at_once) * at_once / trials if trials else 1.0


def clock_length(config: Config, at_once: int) -> float:
    """Return the length of an arm's search relative to full rows.

    Rows are empty at its end, and while a proposal waits for results that it has to know (`TrialClock`). Here, every
    trial that is not pruned takes `UNITS` ticks, and pruned ones are spread evenly. A study of more than `MOST_TRIALS`
    is simulated in a smaller size. In a budget of time no proposal waits.
    """
    if is_time(config.budget):
        return waves(config.study.n_trials, at_once)
    scale = min(MOST_TRIALS / config.study.n_trials, 1.0)
    durations = _expected_durations(config, scale)
    most = engines.most_at_once(config) or config.study.n_trials
    at_once, places = (max(round(scale * count), 1) for count in (at_once, most))
    clock, running, ended, ticks = TrialClock(places), dict[int, int](), 0, 0
    while ended < len(durations):
        while len(running) < at_once and (begun := ended + len(running)) < len(durations):
            if clock.start(begun) is None:
                break
            running[begun] = 0
        ticks += 1
        for index in [*running]:
            running[index] += 1
            if running[index] < durations[index]:
                clock.survive(index, running[index])
            else:
                clock.end(index, running.pop(index))
                ended += 1
    return ticks * at_once / sum(durations)


def _expected_durations(config: Config, scale: float = 1.0) -> list[int]:
    """Return the expected duration of each search trial of an arm, in ticks, in a study scaled down to `scale`."""
    counts = (config.study.n_trials, min(config.pruner.n_startup_trials, config.study.n_trials))
    trials, startup = (max(round(scale * count), 1) if count else 0 for count in counts)
    shortest = max(round(UNITS * min(config.pruner.warmup_epochs / config.trainer.max_epochs, 1.0)), 1)
    mean = UNITS * (trials * searched_share(config) - startup) / max(trials - startup, 1)
    whole = min(max((mean - shortest) / (UNITS - shortest), 0.0), 1.0) if shortest < UNITS else 1.0
    is_whole = [index < startup or int((index + 1) * whole) > int(index * whole) for index in range(trials)]
    return [UNITS if each else shortest for each in is_whole]


def searched_share(config: Config) -> float:
    """Return the expected share of epochs that search trials train for."""
    startup = min(config.pruner.n_startup_trials if config.pruner.name != "none" else 0, config.study.n_trials)
    may_be_pruned = (config.study.n_trials - startup) / config.study.n_trials
    known = PRUNERS.get(config.pruner.name)
    share = known.share if known else 1.0  # unknown for a pruner object
    warmup = min(config.pruner.warmup_epochs / config.trainer.max_epochs, 1.0)
    return 1 - may_be_pruned * (1 - max(share, warmup))


def planned_pace(context: ExperimentContext, plan: Plan) -> float | None:
    """Return the expected seconds per epoch of the search from the plan's measurements, or None."""
    if not plan.speed:
        return None
    sequential, config = plan.engine == "sequential", context.config
    rows = min(context.processes * (1 if sequential else plan.width), engines.most_rows(config))
    seconds = EVALUATION * len(context.source.train_loader(0)) / (plan.speed * context.processes)
    return Pace(seconds, at_once=rows, idle=1.0 if sequential else 0.5).of(1.0, clock_length(config, rows))


class PilotFeed:
    """A feed of trials that end after a few epochs; it records only the times of reports.

    Args:
        specs: The trials.
        most_at_once: Maximum number of open trials.
        epochs: Number of epochs after which trials end.
        clock: A monotonic clock in seconds.
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
        self._looks, self._first_look = 0, clock()

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
        self._looks += 1
        return self._clock() > self._until

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
        if not self._batches or self._looks < 2:
            return None
        return Pace(self._batches * (self._clock() - self._first_look) / (self._looks - 1))


def pilot(
    context: ExperimentContext,
    engine: Engine,
    phase: TrialPhase,
    arm: str,
    clock: Callable[[], float] = time.perf_counter,
) -> Pace | None:
    """Train a few epochs of an arm as in a phase of the run, and return the pace.

    Args:
        context: What the run consists of.
        engine: What trains.
        phase: search or confirm, which have different numbers of open trials.
        arm: The arm.
        clock: A monotonic clock in seconds.
    """
    config = context.config
    if phase == "search":
        count, most = config.study.n_trials, engines.most_at_once(config)
    else:
        count, most = engines.confirmed_at_once(config), None
    epochs = min(EPOCHS, config.trainer.max_epochs)
    wanted = 2 if is_sequential(engine) else 1
    count = max(min(count, most or count), wanted)
    specs = [dataclasses.replace(spec, phase=phase) for spec in _specs(context, arm, count)]
    trains = engine.engine if isinstance(engine, InProcessEngine) else engine
    batches = len(context.source.train_loader(0)) if isinstance(trains, SequentialEngine) else 0
    feed = PilotFeed(specs, most, epochs, clock, batches)
    engine.run(feed)
    return feed.pace()


def _specs(context: ExperimentContext, arm: str, count: int) -> list[TrialSpec]:
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


def evidence_pace(
    context: ExperimentContext, clock: Callable[[], float] = time.perf_counter, *, thorough: bool = False
) -> float:
    """Return the seconds to measure one model, from an untrained one; 0 if it cannot be measured.

    Validation examples replace those of the test set, in the same number.

    Args:
        context: What the run consists of.
        clock: A monotonic clock in seconds.
        thorough: Measure models of two arms, also in a run with few models.
    """
    config = context.config
    if config.evidence.name == "off":
        return 0.0
    if not thorough and len(config.arms) * config.confirm.seeds < MANY_MODELS:
        return LOOK_SECONDS
    try:
        with named_if_still("measuring the duration of the evidence"):
            return _pace_of_looks(context, clock, 1 + thorough)
    except Exception:  # user modules may raise anything; trained models report the error
        return 0.0


def _pace_of_looks(context: ExperimentContext, clock: Callable[[], float], arms: int) -> float:
    shared = measurement_data(dataclasses.replace(context, source=_WithoutTest(context.source)))  # type: ignore[arg-type]
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
    (spec,) = _specs(context, arm, 1)
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


class _WithoutTest:
    """A data source without its test set."""

    has_test = False

    def __init__(self, source: object) -> None:
        self._source = source

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)
