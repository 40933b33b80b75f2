"""The summary of a run, as shown in reports."""

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
    """All results of a run that the report, MLflow's parent run and results.json show."""

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
    """The resolved configuration as plain containers."""
    tracking: Mapping[str, str] = field(default_factory=dict)
    """Locations of the tracked runs: tracking_uri, experiment, experiment_id and run_id of MLflow's parent run; project
    and url of W&B; logdir of TensorBoard. Empty with tracking=none."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """Commands for the user, by purpose: "mlflow", "run", "wandb", "tensorboard" (see the curves), "reload" (load the
    winner), "retrain", "continue"."""
    not_loaded: str = ""
    """Why no command loads the winner; empty if one does or there is none."""
    answer: tuple[str, ...] = ()
    """The sentences of the report's answer and of what limits it, for trackers."""
    monitor: Monitor = field(default_factory=Monitor)
    comparison_metric: ComparisonMetric = field(default_factory=ComparisonMetric)
    notes: tuple[str, ...] = ()
    """Restrictions of this run, such as parameters that were not searched."""
    fixed_luck: tuple[str, ...] = ()
    """Sources of variation that do not depend on a trial's seed, such as ``initial weights`` or ``batch order``.

    Differences between arms over seeds do not cover this variation, so none of them is shown.
    """
    redraws_split: bool = False
    """Whether each seed of the confirmation also drew its split into training and validation set.

    If not, all models share the split that the data came with. Differences are then shown for that split.
    """
    overlaps: tuple[str, ...] = ()
    """Sentences about examples of validation or test set that are also training examples."""
    own_arguments: Mapping[str, str] = field(default_factory=dict)
    """By arm, the arguments in which its module differs from that of the arm without dropout beside it, `width=32`."""
    evidence: Evidence | None = None
    """Measured effects of dropout in the winners; None if not measured."""
    trained_before: int = 0
    """Number of trials and retrainings of earlier commands, which `seconds` does not count."""
    complete: bool = True
    """False if the run was interrupted, so that results are partial."""

    @property
    def contrasts(self) -> list[Comparison]:
        """The planned contrasts of the comparison metric."""
        return [each for each in self.comparisons if each.metric == self.comparison_metric.metric]
