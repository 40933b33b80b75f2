"""Metrics and parameters for trackers. Metrics keep the module's names; others start with `dropsearch/`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropsearch.core.override_text import leaves
from dropsearch.core.records import ArmOutcome, EpochMetrics, Summary, TrialResult, TrialSpec
from dropsearch.stats.intervals import finite_mean

OWN = "dropsearch"
OURS = tuple(f"{OWN}/{name}" for name in ("train_loss", "train_loss_as_trained", "train_acc"))
"""Metrics of an epoch that a module does not log."""


def of_epoch(metrics: EpochMetrics) -> dict[str, float]:
    """Return the measured metrics of an epoch by name."""
    found = {
        **dict(zip(OURS, (metrics.train_loss, metrics.train_loss_as_trained, metrics.train_acc), strict=True)),
        "val_loss": metrics.val_loss,
        "val_acc": metrics.val_acc,
        **metrics.logged,
    }
    return {name: float(value) for name, value in found.items() if not math.isnan(value)}


def of_trial(result: TrialResult) -> dict[str, float]:
    """Return the summary metrics of a finished trial: those of its best epoch, number of epochs, seconds.

    What a module logs under a name that a metric of ours has too, such as train_loss, is in its curve alone.
    """
    totals = {f"{OWN}/epochs": float(len(result.curve)), f"{OWN}/seconds": float(result.seconds)}
    if result.best is None:
        return totals
    best = {name: value for name, value in of_epoch(result.best).items() if not name.startswith(OWN)}
    best = {name: value for name, value in best.items() if f"{OWN}/{name}" not in OURS}
    return totals | {f"{OWN}/{name}_best": value for name, value in best.items()}


def of_arm(outcome: ArmOutcome) -> dict[str, float]:
    """Return the known summary metrics of an arm by name."""
    shown, found = outcome.monitor, {"trials": float(len(outcome.trials))}
    if outcome.best is not None:
        found[f"{shown.name}_best"] = shown.objective(outcome.best.objective)
    if outcome.winner is not None:
        found[f"{shown.name}_confirmed"] = shown.objective(outcome.winner.mean_val_loss)
    if outcome.test is not None:
        for name, scores in (("test_acc", outcome.test.acc), (outcome.test.loss_name, outcome.test.loss)):
            found[name] = finite_mean(scores)  # over the seeds with a score, as in every report
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def params_of(spec: TrialSpec) -> dict[str, Any]:
    """Return a trial's parameters: rates by site, optimizer settings, other searched values, arm and seed."""
    found: dict[str, Any] = {"arm": spec.arm, **{f"rate.{site}": rate for site, rate in spec.rates.items()}}
    searched = {"lr": spec.lr, "weight_decay": spec.weight_decay}
    found |= {name: value for name, value in searched.items() if not math.isnan(value)}
    found |= {**spec.hyperparameters, "seed": spec.seed, "number": spec.number, "configuration": spec.configuration}
    found |= {"variation": spec.variation or None}
    return {name: value for name, value in found.items() if value is not None}


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted names; a list is one leaf in JSON."""
    known = {name: value for name, value in leaves(config) if value is not None and value != {}}
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)
        for name, value in known.items()
    }


def of_summary(summary: Summary) -> dict[str, float]:
    """Return the numbers of all arms, each under ``dropsearch/ARM/``."""
    return {f"{OWN}/{arm}/{name}": value for arm, each in summary.arms.items() for name, value in of_arm(each).items()}


class EndedTrials:
    """The keys of the trials that a tracker has written completely, stored in a file with one line per trial."""

    def __init__(self, path: Path, study_id: str) -> None:
        self._path, self._study_id = path, study_id

    def keys(self) -> set[str]:
        """Return the keys of this study's trials."""
        try:
            lines: Sequence[str] = self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return set()
        known = [line.partition("\t") for line in lines]
        return {key for study_id, _, key in known if study_id == self._study_id}

    def add(self, key: str) -> None:
        """Record that a trial is written."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{self._study_id}\t{key}\n")
