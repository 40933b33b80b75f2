"""Conversion of records to MLflow's parameters, metrics and tables, with valid names."""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dropsearch.core.override_text import leaves
from dropsearch.core.printable import printable
from dropsearch.core.records import ArmEvidence, ArmOutcome, EpochMetrics, Summary, TrialResult, TrialSpec
from dropsearch.stats.intervals import finite_mean
from dropsearch.tracking import metrics
from dropsearch.tracking.metrics import OWN, of_trial

KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
"""MLflow's limits, in characters."""

_MARKUP = re.compile(r"[\\`*\[\]|~<>&]")
"""Characters that start markup in Markdown or HTML."""
Point = tuple[str, float, int]
"""Name, value, step."""
Points = list[Point]


def now() -> int:
    """Return MLflow's current time, in milliseconds."""
    return int(time.time() * 1000)


def key(*parts: str) -> str:
    """Join `parts` with dots into a valid MLflow name: invalid characters become ``_``, and ``#`` a colon.

    A name that is too long is cut and ends in a digest, so that it stays unique.
    """
    name = re.sub(r"[^/\w.\- :]", "_", ".".join(parts).replace("#", ":"))
    if posixpath.normpath(name) != name or name == "." or name.startswith(("/", "..")):
        name = "_" + name.replace("/", ".")
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name if len(name) <= KEY_LENGTH else f"{name[: KEY_LENGTH - 9]}-{digest}"


def cut(text: str, length: int) -> str:
    """Return `text`, shortened with an ellipsis if it is longer than `length`."""
    return text if len(text) <= length else text[: length - 1] + "…"


def words(text: str) -> str:
    """Return text for a Markdown description: one line without control characters or markup."""
    return _MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the leaves of nested mappings by dotted names; a list is one leaf in JSON."""
    return {key(name): _setting(value) for name, value in leaves(config)}


def _setting(value: Any) -> str:
    return printable(value, keep="\n\t") if isinstance(value, str) else json.dumps(value, default=str)


def params_of(spec: TrialSpec) -> dict[str, str]:
    """Return a trial's parameters: rates by site, optimizer settings, other searched values, seed, number."""
    return {key(name): _setting(value) for name, value in metrics.params_of(spec).items() if name != "arm"}


def points_of(point: EpochMetrics) -> Points:
    """Return one epoch's points; an unmeasured accuracy or train loss (NaN) has none."""
    values = {
        f"{OWN}/train_loss": point.train_loss,
        f"{OWN}/train_loss_as_trained": point.train_loss_as_trained,
        "val_loss": point.val_loss,
        f"{OWN}/train_acc": point.train_acc,
        "val_acc": point.val_acc,
    }
    # A user module may log no loss, and its metrics keep their names.
    always = () if point.monitored is not None else (f"{OWN}/train_loss_as_trained", "val_loss")
    known = {name: value for name, value in values.items() if name in always or not math.isnan(value)}
    known |= {key(name): value for name, value in point.logged.items()}
    return [(name, float(value), point.epoch) for name, value in known.items()]


def totals_of(result: TrialResult) -> Points:
    """Return the summary of a finished trial: loss and accuracy of its best epoch, epochs, seconds.

    MLflow's table of runs shows the last value of a curve, which may differ from the best one.
    """
    step = result.best.epoch if result.best else 0
    logged = {key(name) for name in result.best.logged} if result.best else set()
    totals = {key(name): value for name, value in of_trial(result).items()}
    return [
        (name, value, step if name.endswith("_best") else 0) for name, value in totals.items() if name not in logged
    ]


def state_of(result: TrialResult) -> dict[str, str]:
    """Return the final state of a trial as tags."""
    state = {"dropsearch.state": result.state}
    return state | ({"dropsearch.reason": result.reason} if result.reason else {})


def scores_of(outcome: ArmOutcome) -> dict[str, float]:
    """Return the known summary metrics of an arm by name, which its run has under `dropsearch/`."""
    scores = {key(name): value for name, value in metrics.of_arm(outcome).items()}
    for state in ("COMPLETE", "PRUNED", "FAIL"):
        scores[f"trials_{state.lower()}"] = float(sum(trial.state == state for trial in outcome.trials))
    if outcome.best is not None and outcome.best.best is not None:
        scores |= {"val_loss_best": outcome.best.best.val_loss, "val_acc_best": outcome.best.best.val_acc}
    if outcome.winner is not None:
        scores["val_acc_confirmed"] = finite_mean(outcome.winner.val_acc)
    # The parent run has one name for val/acc and val_acc; the monitored metric keeps its own.
    monitored = {f"{key(outcome.monitor.name)}_{kind}" for kind in ("best", "confirmed")} & scores.keys()
    taken = {_flat(name) for name in monitored}
    kept = {name: value for name, value in scores.items() if name in monitored or _flat(name) not in taken}
    return {name: value for name, value in kept.items() if not math.isnan(value)}


def _tested(outcome: ArmOutcome) -> str:
    """Return the name of the metric by which an arm is tested, apart from accuracy."""
    return key(outcome.test.loss_name) if outcome.test else "test_loss"


def _flat(name: str) -> str:
    return name.replace("/", "_")


def answer_of(arm: str, outcome: ArmOutcome) -> Points:
    """Return the scores of an arm that the parent run has, so that its charts are few: confirmed and tested."""
    scores = {name: value for name, value in scores_of(outcome).items() if name.endswith("_confirmed")}
    scores |= {name: value for name, value in scores_of(outcome).items() if name in (_tested(outcome), "test_acc")}
    return [(key(f"{OWN}/{arm}/{_flat(name)}"), value, 0) for name, value in scores.items()]


def measures_of(found: ArmEvidence) -> dict[str, float]:
    """Return the mean over seeds of each available measure of an arm's winner."""
    means = {name: finite_mean(values) for name, values in found.measures.items()}
    return {name: mean for name, mean in means.items() if not math.isnan(mean)}


def chosen_params_of(outcome: ArmOutcome) -> dict[str, str]:
    """Return the chosen configuration of an arm as parameters of its run, with the run of its search trial.

    It is that of the winner, which need not be the best trial of the search, nor one of this arm: arms are nested.
    """
    spec = outcome.found
    if spec is None:
        return {}
    number = spec.number if spec.configuration is None else spec.configuration
    owner = outcome.winner.owner if outcome.winner else ""
    params = {key("chosen_rate", site): repr(rate) for site, rate in spec.rates.items()}
    params |= {key(f"chosen_{name}"): _setting(value) for name, value in spec.hyperparameters.items()}
    return params | {
        "chosen_lr": repr(spec.lr),
        "chosen_weight_decay": repr(spec.weight_decay),
        "chosen_trial": f"{owner or outcome.arm.name}/{number}",
    }


def table_of(summary: Summary) -> dict[str, list[Any]]:
    """Return the table of arms by column, with one row per arm; unknown values are None."""
    monitored = key(summary.monitor.name)
    chosen = [f"{monitored}_{kind}" for kind in ("best", "confirmed")]
    columns = ("trials", *chosen, "val_acc_confirmed", *map(_tested, summary.arms.values()), "test_acc")
    sites = dict.fromkeys(site for outcome in summary.arms.values() for site in outcome.rates)
    scores = [scores_of(outcome) for outcome in summary.arms.values()]
    table: dict[str, list[Any]] = {"arm": list(summary.arms)}
    table |= {
        column: [_finite(score.get(column)) for score in scores]
        for column in dict.fromkeys(columns)
        if any(column in score for score in scores)
    }
    return table | {f"rate.{site}": [outcome.rates.get(site) for outcome in summary.arms.values()] for site in sites}


def _finite(value: float | None) -> float | None:
    """Return a finite number, or None, since JSON has no nan or inf."""
    return value if value is not None and math.isfinite(value) else None


def note_of(summary: Summary) -> str:
    """Return the parent run's description in Markdown: the answer, the table of arms, and rates."""
    table = table_of(summary)
    scores = [name for name in table if not name.startswith("rate.")]
    rates = [name for name in table if name.startswith("rate.")]
    parts = [
        f"**{words(summary.study)}**: {words(summary.model)} on {words(summary.data)}"
        + ("" if summary.complete else " (interrupted: partial results)"),
        *map(words, summary.answer),
        _markdown(table, scores),
        _markdown(table, ["arm", *rates]) if rates else "",
    ]
    return cut("\n\n".join(part for part in parts if part), TAG_LENGTH)


def _markdown(table: Mapping[str, Sequence[Any]], names: Sequence[str]) -> str:
    rows: Iterable[tuple[Any, ...]] = zip(*(table[name] for name in names), strict=True)
    lines = [[words(name) for name in names], ["---"] * len(names), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else words(str(value))


TimedPoints = list[tuple[EpochMetrics, int]]
"""Points with their times in milliseconds."""


@dataclass
class Curve:
    """Collects the points of a trial for periodic writes."""

    since: float = field(default_factory=time.monotonic)
    flushed: float = field(default_factory=time.monotonic)
    epochs: int = 0
    waiting: TimedPoints = field(default_factory=list)

    def with_point(self, metrics: EpochMetrics, flush_seconds: float) -> tuple[TimedPoints, int] | None:
        """Add a point; after `flush_seconds`, return the collected points and the trial's start in milliseconds."""
        self.waiting.append((metrics, now()))
        self.epochs += 1
        at = time.monotonic()
        if at - self.flushed < flush_seconds or self.epochs < 2:
            return None
        # The first point is the end of an epoch, whose duration is estimated from the later ones.
        lasted = (at - self.since) * self.epochs / (self.epochs - 1)
        points, self.waiting, self.flushed = self.waiting, [], at
        return points, now() - int(1000 * lasted)
