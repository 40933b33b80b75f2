"""Winners retrained on parts of the training set: does the gap of an arm depend on how much there is to learn?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.records import ArmOutcome, Comparison, EpochMetrics, Evidence, TrainSize, TrialResult
from dropsearch.datasets.user_data import UserData
from dropsearch.experiment import build, engines
from dropsearch.experiment.arm_runner import ArmRunner
from dropsearch.experiment.retrainings import Number, at_best, retrained
from dropsearch.stats.comparisons import contrasted
from dropsearch.training.planning.plan import Plan
from dropsearch.training.protocols import Engine

CONTRASTS = (("dropout", "none"), ("both", "batchnorm"))
"""What dropout does without BatchNorm, and with it."""

BySeed = dict[int, float]


def check_train_sizes(config: Config, source: build.Source) -> None:
    """Check that the training set has the parts that are asked for.

    Raises:
        InputError: It is smaller, or it is the user's own, of which no part can be taken.
    """
    sizes = config.evidence.train_sizes
    if sizes and isinstance(source, UserData):
        raise InputError(
            f"evidence.train_sizes must be [] with data of one's own, got {sizes}: its module alone can take a part"
        )
    if sizes and (there := source.sizes["train"]) < sizes[-1]:
        raise InputError(
            f"evidence.train_sizes must be at most the {there} training examples, got {sizes[-1]}: leave it out"
        )


@contextmanager
def sized_engines(config: Config, source: build.Source, plan: Plan) -> Iterator[Mapping[int, Engine]]:
    """Give what trains on each part of the training set as long as the context lasts; processes are forked here."""
    with ExitStack() as stack:
        sized: dict[int, Engine] = {}
        for size in config.evidence.train_sizes:
            assert not isinstance(source, UserData), "checked before"
            sized[size] = engines.engine(config, source.with_train_size(size), plan, lambda spec: None)
            stack.callback(sized[size].close)
        yield sized


def with_train_sizes(evidence: Evidence, arm_runner: ArmRunner, arms: Mapping[str, ArmOutcome]) -> Evidence:
    """Return the evidence with what the winners of all arms came to on parts of the training set."""
    sizes = arm_runner.config.evidence.train_sizes
    found = {size: _results(arm_runner, arms, size) for size in sizes}
    contrasts = [*_contrasts(found, "gap_best", _gap), *_contrasts(found, "val_loss", _val_loss)]
    measured = tuple(
        TrainSize(
            size,
            _numbers(results, _gap),
            _numbers(results, _val_loss),
            _numbers(results, lambda point: point.val_acc),
            tuple(contrast for of, contrast in contrasts if of == size),
        )
        for size, results in found.items()
    )
    return dataclasses.replace(evidence, train_sizes=measured)


Results = Mapping[str, Mapping[int, TrialResult | None]]
"""By arm and seed; None where a retraining is missing."""


def _results(arm_runner: ArmRunner, arms: Mapping[str, ArmOutcome], size: int) -> Results:
    found: dict[str, dict[int, TrialResult | None]] = {}
    for studies in arm_runner.studies:
        winner = arms[studies.arm.name].winner
        if winner is not None:
            ((_, results),) = retrained(studies, winner, "sizes", (size,)).values()
            done = {result.spec.seed: result for result in results}
            found[studies.arm.name] = {seed: done.get(seed) for seed in winner.seeds}
    return found


def _gap(point: EpochMetrics) -> float:
    return point.val_loss - point.train_loss


def _val_loss(point: EpochMetrics) -> float:
    return point.val_loss


def _by_seed(results: Mapping[int, TrialResult | None], number: Number) -> BySeed:
    return {seed: at_best(result, number) for seed, result in results.items()}


def _numbers(results: Results, number: Number) -> dict[str, tuple[float, ...]]:
    return {arm: tuple(_by_seed(found, number).values()) for arm, found in results.items()}


def _contrasts(found: Mapping[int, Results], metric: str, number: Number) -> Sequence[tuple[int, Comparison]]:
    """Return each contrast with its size, p-values adjusted for all contrasts at all sizes."""
    pairs = [(size, a, b) for size, arms in found.items() for a, b in CONTRASTS if a in arms and b in arms]
    values = {f"{arm} {size}": _by_seed(of, number) for size, arms in found.items() for arm, of in arms.items()}
    compared = contrasted(values, [(f"{a} {size}", f"{b} {size}") for size, a, b in pairs], metric)
    return [
        (size, dataclasses.replace(comparison, a=a, b=b))
        for (size, a, b), comparison in zip(pairs, compared, strict=True)
    ]
