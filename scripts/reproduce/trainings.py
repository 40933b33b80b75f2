"""Given trials, trained by dropsearch's engine many at a time, their best weights kept to be looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropsearch.analysis.measures.protocol import TrainedModel
from dropsearch.config.command_line import with_user_targets
from dropsearch.config.compose import compose_overrides
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.experiment import engines
from dropsearch.experiment.context import build_context
from dropsearch.experiment.winners import measurement_data, trained
from dropsearch.stats.paired_tests import paired_difference, wilcoxon_exact

WEIGHT_DECAY = 1e-4
"""Of every training here, with AdamW."""


class Trainings:
    """Trains trials that are given, and not searched.

    Args:
        overrides: The configuration, as on the command line; arms, engine and output are set here.
        arms: What the trials are of.
    """

    def __init__(self, overrides: Sequence[str], arms: Iterable[str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        fixed = [f"arms=[{','.join(arms)}]", "engine.width=10", "tracking=none", f"output_dir={self._folder.name}"]
        self.context = build_context(compose_overrides(with_user_targets([*fixed, *overrides])))
        self._results: dict[str, TrialResult] = {}
        self.sites = [site.name for site in self.context.sites]

    def train(self, specs: Sequence[TrialSpec]) -> list[TrialResult]:
        """Train trials and return their results in the same order."""
        engines.use_threads(self.context)
        engine = engines.engine(self.context, engines.plan(self.context), self.path)
        try:
            for arm in self.context.config.arms:  # vectorized trials belong to one arm
                feed = _Given([spec for spec in specs if spec.arm == arm])
                engine.run(feed)
                self._results |= feed.ended
        finally:
            engine.close()
        return [self._results[spec.key] for spec in specs]

    def path(self, spec: TrialSpec) -> Path:
        """Return where the weights of a trial's best epoch are."""
        return Path(self._folder.name, f"{spec.key.replace('/', '-')}.ckpt")

    def model(self, spec: TrialSpec) -> Any:
        """Return the module of a trial that was trained, on the CPU, in evaluation mode."""
        return self.context.load(self._results[spec.key], self.path(spec))

    def trained(self, spec: TrialSpec) -> TrainedModel:
        """Return it as the measures of `dropsearch.analysis` take it, with at most 2,048 examples of each set."""
        shared = measurement_data(self.context)
        return trained(self.context, shared, self._results[spec.key], self.path(spec))

    def test_accuracy(self, spec: TrialSpec) -> float:
        """Return its test accuracy, %."""
        model = self.context.load(self._results[spec.key], self.path(spec))
        return 100 * self.context.modules.test_scores(model).acc


class _Given:
    """A feed of given trials, none of which is pruned."""

    most_at_once: int | None = None
    held = False

    def __init__(self, specs: Sequence[TrialSpec]) -> None:
        self._waiting = list(specs)
        self.ended: dict[str, TrialResult] = {}

    def ask(self, count: int) -> list[TrialSpec]:
        specs, self._waiting = self._waiting[:count], self._waiting[count:]
        return specs

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        return [False for _ in reports]

    def tell(self, results: Sequence[TrialResult]) -> None:
        for result in results:
            if result.state != "COMPLETE":
                raise SystemExit(f"{result.spec.key} failed: {result.reason}")
            self.ended[result.spec.key] = result

    def cancelled(self) -> bool:
        return False


@dataclass(frozen=True)
class Contrast:
    """A paired difference, as one column of a table."""

    differences: Sequence[float]
    digits: int = 2

    def __str__(self) -> str:
        zeros = [0.0] * len(self.differences)
        found = paired_difference(self.differences, zeros)
        low, high = (f"{bound:+.{self.digits}f}" for bound in (found.low, found.high))
        return f"{found.mean:+.{self.digits}f} ({low} to {high}) | {wilcoxon_exact(self.differences):.3f}"


def columns(*cells: object) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def show(title: str, heads: Sequence[str], rows: Iterable[str], left: int = 1) -> None:
    """Print a Markdown table under its title; the first `left` columns hold words."""
    rule = columns(*[":--"] * left, *["--:"] * (len(heads) - left))
    print(title, "", columns(*heads), rule, *rows, "", sep="\n", flush=True)


def rates(sites: Iterable[str], by_kind: Mapping[str, float]) -> dict[str, float]:
    """Return a rate for each site, by whether its name says that it is the input."""
    return {site: by_kind["input" if "input" in site else "hidden"] for site in sites}
