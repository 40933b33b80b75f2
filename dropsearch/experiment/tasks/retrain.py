"""`task=retrain`: train one configuration from an earlier run."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropsearch.config.schema import Config
from dropsearch.core.atomic_io import temporary_path
from dropsearch.core.errors import STOPPED, InputError, RunError, close_match
from dropsearch.core.records import ARMS, ArmOutcome, Confirmed, EpochMetrics, Monitor, Summary, TrialResult, TrialSpec
from dropsearch.core.records.codec import encode
from dropsearch.experiment import engines
from dropsearch.experiment.artifacts import why_not_loaded
from dropsearch.experiment.build import make_output_folder
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.interruption import Interruption
from dropsearch.experiment.provenance import reload_command, summary_of
from dropsearch.experiment.scoring import monitored_metric
from dropsearch.report.numbers import loss
from dropsearch.report.results import load_summary, save_summary
from dropsearch.training.protocols import GivenTrials
from dropsearch.training.sequential import SequentialEngine


class _PrintedTrial(GivenTrials):
    """A feed of one trial, whose epochs are printed."""

    def __init__(self, spec: TrialSpec, interruption: Interruption, monitor: Monitor) -> None:
        super().__init__([spec])
        self._interruption, self._monitor = interruption, monitor

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        for _, metrics in reports:
            train = f"{loss(metrics.train_loss)} ({loss(metrics.train_loss_as_trained)} as trained)"
            print(f"epoch {metrics.epoch + 1}: train loss {train}, {_validated(metrics, self._monitor)}")
        return super().report(reports)

    def cancelled(self) -> bool:
        return self._interruption()


def retrain(config: Config) -> int:
    """Train the configuration under `retrain` and keep its best epoch; return the exit status."""
    context = build_context(config)
    engines.use_precision(config.trainer.matmul)
    _check_sites(config, [site.name for site in context.sites])
    make_output_folder(context.folder)
    wanted = config.retrain
    spec = TrialSpec(
        wanted.arm,
        0,
        wanted.seed,
        {**(context.rates_off if ARMS[wanted.arm].dropout == "off" else {}), **wanted.rates},
        wanted.lr,
        wanted.weight_decay,
        hyperparameters=wanted.params,
        phase="confirm",
        configuration=0,
    )
    interruption = Interruption()
    feed = _PrintedTrial(spec, interruption, context.monitor)
    with temporary_path(context.folder / f"{wanted.arm}-{wanted.seed}.ckpt") as trained:
        with interruption.listening():
            SequentialEngine(context.make_module, context.source, context.settings, lambda _: trained).run(feed)
        if interruption.requested:
            print("stopped: nothing was kept")
            return STOPPED
        result = feed.results.get(spec.number)
        if result is None or result.best is None or result.state == "FAIL":
            raise RunError(f"the training failed ({result.reason if result else 'nothing was trained'})")
        path, summary = _keep(context, result, trained)
    _print_result(context, summary, result, path)
    return 0


def _keep(context: ExperimentContext, result: TrialResult, trained: Path) -> tuple[Path, Summary]:
    """Move the weights to the folder of the retraining and write its summary; return the new path and the summary.

    The folder is `ARM-SEED`; `ARM-SEED-2` and so on where another configuration or result has that one.
    """
    summary = _summary(context, result)
    name = f"{result.spec.arm}-{result.spec.seed}"
    folders = (context.folder / (f"{name}-{number}" if number > 1 else name) for number in itertools.count(1))
    folder = next(each for each in folders if _is_free(each, summary))
    path = folder / "best" / f"{result.spec.arm}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    trained.replace(path)
    kept = _summary(context, dataclasses.replace(result, checkpoint=str(path)))
    save_summary(kept, folder)
    return path, kept


def _is_free(folder: Path, summary: Summary) -> bool:
    """Return whether a folder was made for a retraining now, or has an earlier one that is the same."""
    try:
        folder.mkdir(parents=True)
        return True
    except FileExistsError:
        pass
    try:
        return _what_was_trained(load_summary(folder)) == _what_was_trained(summary)
    except InputError:  # of another kind or version, or of a process that has not written its summary yet
        return False


def _what_was_trained(summary: Summary) -> Any:
    """Return the configuration of a retraining and its curve, with numbers that are equal if they are NaN."""
    curves = [result.curve for arm in summary.arms.values() for each in arm.confirmed for result in each.results]
    return encode([summary.config, curves])


def _check_sites(config: Config, known: list[str]) -> None:
    if ARMS[config.retrain.arm].dropout == "off" and any(config.retrain.rates.values()):
        raise InputError(f"retrain.rates must be empty for arm {config.retrain.arm}, got {config.retrain.rates}")
    for site in config.retrain.rates:
        if site not in known:
            raise InputError(
                f'retrain.rates must name sites of model={config.model.name}, got "{site}"{close_match(site, known)}: '
                f"its sites are {', '.join(known)}"
            )


def _summary(context: ExperimentContext, result: TrialResult) -> Summary:
    """Return what `SearchResult.load` reads: one arm with one configuration, trained once."""
    arm, winner = ARMS[result.spec.arm], Confirmed(0, (result,))
    outcome = ArmOutcome(arm, (), (winner,), winner, monitor=context.monitor)
    metric = monitored_metric(context.monitor, has_test=False)
    return summary_of(context, {arm.name: outcome}, metric, engine="sequential", seconds=result.seconds, comparisons=())


def _print_result(context: ExperimentContext, summary: Summary, result: TrialResult, path: Path) -> None:
    if best := result.best:
        print(f"best epoch {best.epoch + 1}: {_validated(best, context.monitor)}")
    print(f"kept in {path}")
    if reason := why_not_loaded(context.config, summary.config, result.spec, path):
        print(f"no command loads it: {reason}")
    else:
        print(f"to load it:\n  {reload_command(str(path.parent.parent), result.spec.arm)}")


def _validated(metrics: EpochMetrics, monitor: Monitor) -> str:
    if monitor.is_val_loss and not math.isnan(metrics.val_acc):
        return f"validation loss {loss(metrics.val_loss)}, accuracy {metrics.val_acc:.4f}"
    return f"{monitor.name} {loss(monitor.objective(metrics.objective))}"
