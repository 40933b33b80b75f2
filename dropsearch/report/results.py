"""results.json: all results of a run, for programs; and the summary of a run, saved without loss."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from dropsearch.core.atomic_io import atomic_write, atomic_write_text
from dropsearch.core.errors import InputError
from dropsearch.core.records import (
    ArmOutcome,
    Comparison,
    ComparisonMetric,
    Confirmed,
    Evidence,
    Interval,
    Monitor,
    Summary,
    TrialResult,
    TrialSpec,
    best_arm,
)
from dropsearch.core.records.codec import decode, encode
from dropsearch.report import findings
from dropsearch.report.text.verdict import answer, verdict
from dropsearch.report.text.warnings import warnings


def results(summary: Summary) -> dict[str, Any]:
    """Return all results as plain containers: losses in nats, accuracies in [0, 1], None for non-finite numbers."""
    return _plain(
        {
            "study": summary.study,
            "model": summary.model,
            "data": summary.data,
            "seed": summary.seed,
            "versions": summary.versions,
            "seconds": summary.seconds,
            "trained_before": summary.trained_before,
            "engine": summary.engine,
            "complete": summary.complete,
            "split": "drawn for each seed" if summary.redraws_split else "the same for all seeds",
            "monitor": asdict(summary.monitor),
            "judge": asdict(summary.comparison_metric),
            "notes": summary.notes,
            "recommended": best_arm(summary.arms),
            "verdict": verdict(summary),
            "answer": answer(summary),
            "warnings": warnings(summary),
            "sites": [asdict(site) for site in summary.sites],
            "arms": {name: _arm(outcome, summary.comparison_metric) for name, outcome in summary.arms.items()},
            "comparisons": [_comparison(comparison) for comparison in summary.comparisons],
            "evidence": _evidence(summary.evidence),
            "tracking": summary.tracking,
            "commands": summary.commands,
            "not_loaded": summary.not_loaded,
            "config": summary.config,
        }
    )


def write_results(summary: Summary, path: Path) -> Path:
    """Write `results` as JSON to `path` atomically and return the path."""
    atomic_write_text(path, json.dumps(results(summary), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    return path


def _arm(outcome: ArmOutcome, comparison_metric: ComparisonMetric) -> dict[str, Any]:
    monitor = outcome.monitor
    return {
        "title": outcome.arm.title,
        "states": findings.states(outcome),
        "trials": [_trial(trial, monitor) for trial in outcome.trials],
        "best": _best(outcome.best, monitor),
        "confirmed": [_confirmed(confirmed, monitor) for confirmed in outcome.confirmed],
        "winner": _winner(outcome, comparison_metric),
        "gap": {
            "search_val_loss": findings.search_loss(outcome),
            "confirmed_val_loss": findings.confirmed_loss(outcome),
            "difference": findings.gap(outcome),
        },
        "typical": outcome.typical,
        "openings": outcome.test.openings if outcome.test else 0,
        "repeats": [[_trial(trial, monitor) for trial in search] for search in outcome.repeats],
    }


def _params(spec: TrialSpec) -> dict[str, Any]:
    """Return a trial's parameters as in Optuna's storage, with rates instead of the sampler's coordinates."""
    each = list(spec.rates.values())
    rates = {f"rate.{site}": rate for site, rate in spec.rates.items()}
    if each:
        rates |= {"rate.shared": each[0], "rate.first": each[0], "rate.last": each[-1]}
    return {name: rates.get(name, value) for name, value in spec.params.items()}


def _trial(trial: TrialResult, monitor: Monitor) -> dict[str, Any]:
    best = trial.best
    return {
        "number": trial.spec.number,
        "state": trial.state,
        "reason": trial.reason,
        "params": _params(trial.spec),
        "rates": trial.spec.rates,
        "lr": trial.spec.lr,
        "lr_used": trial.lr_used,
        "weight_decay": trial.spec.weight_decay,
        "hyperparameters": trial.spec.hyperparameters,
        "seed": trial.spec.seed,
        "val_loss": best.val_loss if best else None,
        "val_acc": best.val_acc if best else None,
        "monitored": monitor.objective(best.objective) if best else None,
        "logged": best.logged if best else {},
        "epochs": len(trial.curve),
        "seconds": trial.seconds,
    }


def _best(trial: TrialResult | None, monitor: Monitor) -> dict[str, Any] | None:
    left_out = ("state", "reason", "seed", "logged", "epochs", "seconds")
    return {key: value for key, value in _trial(trial, monitor).items() if key not in left_out} if trial else None


def _confirmed(confirmed: Confirmed, monitor: Monitor) -> dict[str, Any]:
    return {
        "number": confirmed.number,
        "seeds": confirmed.seeds,
        # The monitored metric, whatever its name; see "monitor".
        "val_loss": [monitor.objective(value) for value in confirmed.val_loss],
        "val_acc": confirmed.val_acc,
        "mean_val_loss": monitor.objective(confirmed.mean_val_loss),
    }


def _winner(outcome: ArmOutcome, comparison_metric: ComparisonMetric) -> dict[str, Any] | None:
    if outcome.winner is None:
        return None
    test, acc, trial = outcome.test, findings.test_acc(outcome), outcome.chosen
    return {
        # Arms are nested: a configuration without dropout may be of the arm without it.
        "arm": outcome.winner.owner or outcome.arm.name,
        "number": outcome.winner.number,
        "params": _params(trial.spec) if trial else {},
        "rates": outcome.rates,
        "hyperparameters": outcome.hyperparameters,
        "seeds": outcome.winner.seeds,
        "mean_val_loss": outcome.monitor.objective(outcome.winner.mean_val_loss),
        "judged": outcome.scores(comparison_metric),
        "opened_at": test.opened_at if test else None,
        "test_loss": test.test_loss if test else [],
        "test_acc": test.acc if test else [],
        "test_logged": test.logged if test else {},
        "mean_test_acc": acc.mean,
        "ci95_test_acc": _bounds(acc),
        "mean_test_loss": findings.test_loss(outcome).mean,
        "ci95_test_loss": _bounds(findings.test_loss(outcome)),
    }


def _comparison(comparison: Comparison, word: str = "shown") -> dict[str, Any]:
    """Return a comparison; `word` is the key of whether the difference is shown."""
    return {
        "a": comparison.a,
        "b": comparison.b,
        "metric": comparison.metric,
        "difference": comparison.difference.mean,
        "ci95": _bounds(comparison.difference),
        "ci95_seeds": _bounds(comparison.over_seeds or comparison.difference),
        "covers": comparison.covers,
        "missing": comparison.missing,
        "p": comparison.p,
        "p_holm": comparison.p_holm,
        "effect": comparison.effect,
        "differences": comparison.differences,
        word: findings.shown(comparison),
    }


def _evidence(evidence: Evidence | None) -> dict[str, Any] | None:
    """Return the evidence with the fields of its records; contrasts in the format of comparisons."""
    if evidence is None:
        return None
    word = "consistent_over_seeds"
    varied = {
        title: {
            arm: [vars(variation) | {"comparison": _comparison(variation.comparison, word)} for variation in variations]
            for arm, variations in by_arm.items()
        }
        for title, by_arm in evidence.variations.items()
    }
    contrasts = [_comparison(contrast, word) for contrast in evidence.contrasts]
    return vars(evidence) | {"contrasts": contrasts, "variations": varied}


def _bounds(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def _plain(value: Any) -> Any:
    """Return a value as JSON types: dict, list, str, int, float, bool and None."""
    if value is None or isinstance(value, bool | str):
        return value
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return str(value)


SUMMARY_FILE = "summary.json.gz"
"""File name in the output directory."""
SUMMARY_FORMAT = 1
"""Format version; it changes when earlier files can no longer be read."""


def save_summary(summary: Summary, folder: Path) -> Path:
    """Write the summary to an output directory atomically and return the path."""
    content = json.dumps({"format": SUMMARY_FORMAT, "summary": encode(summary)}, allow_nan=False).encode()
    with atomic_write(folder / SUMMARY_FILE) as temporary:
        temporary.write_bytes(gzip.compress(content, compresslevel=6, mtime=0))
    return folder / SUMMARY_FILE


def load_summary(folder: Path) -> Summary:
    """Read the summary of a finished run.

    Raises:
        InputError: The folder has no such file, or an unreadable one.
    """
    path = folder / SUMMARY_FILE
    if not path.is_file():
        raise InputError(
            f'output_dir must be that of a finished run, got "{folder}" (it has no {SUMMARY_FILE}): run it first'
        )
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
        if content["format"] != SUMMARY_FORMAT:
            raise ValueError(f"its format is {content['format']}, not {SUMMARY_FORMAT}")
        return decode(Summary, content["summary"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} must be a summary that this version of dropsearch wrote ({type(error).__name__}: {error}): "
            "repeat the command to write it again"
        ) from error
