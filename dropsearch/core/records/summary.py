"""A whole run, as the report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dropsearch.core.records.arms import Site
from dropsearch.core.records.evidence import Evidence
from dropsearch.core.records.metrics import ComparisonMetric, Monitor
from dropsearch.core.records.outcomes import ArmOutcome, Comparison


@dataclass(frozen=True)
class Summary:
    """What a run found: everything that the report, MLflow's parent run and results.json show."""

    study: str
    model: str
    data: str
    seed: int
    versions: Mapping[str, str]
    seconds: float
    engine: str
    sites: tuple[Site, ...]
    """The sites of the model in its dropout arms, in the order of a forward pass."""
    arms: Mapping[str, ArmOutcome]
    comparisons: tuple[Comparison, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration, as plain containers."""
    mlflow: Mapping[str, str] = field(default_factory=dict)
    """tracking_uri, experiment, experiment_id and run_id of the parent run; empty with tracking=none."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """Exact commands: "mlflow" opens the UI, "reload" reloads the winner, "retrain", "continue"."""
    monitor: Monitor = field(default_factory=Monitor)
    comparison_metric: ComparisonMetric = field(default_factory=ComparisonMetric)
    notes: tuple[str, ...] = ()
    """What a reader must know of this run: what was not searched, or was not measured."""
    fixed_luck: tuple[str, ...] = ()
    """What does not vary with a trial's seed: ``initial weights``, ``initial weights of backbone``, ``batch order``.

    A difference between arms that rests on seeds alone does not cover this luck, so nothing is "shown" where
    ``initial weights`` or ``batch order`` stands here.
    """
    evidence: Evidence | None = None
    """What dropout did in the winners; None where that was not measured."""
    complete: bool = True
    """False where the run was interrupted and this is what was done until then."""
