"""`task=retrain`: train one configuration that an earlier run found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from dropsearch.config.schema import Config
from dropsearch.core.errors import STOPPED, InputError, RunError, close_match
from dropsearch.core.records import ARMS, EpochMetrics, Monitor, Site, TrialResult, TrialSpec
from dropsearch.experiment import build, engines, user_module
from dropsearch.experiment.provenance import reload_command
from dropsearch.experiment.watched_feed import Interruption
from dropsearch.training.sequential import SequentialEngine


class _OneTrial:
    """A feed of a single trial."""

    most_at_once: int | None = 1

    def __init__(self, spec: TrialSpec, cancelled: Interruption, monitor: Monitor) -> None:
        self.monitor = monitor
        self._spec: TrialSpec | None = spec
        self.cancelled = cancelled
        self.result: TrialResult | None = None

    def ask(self, count: int) -> list[TrialSpec]:
        spec, self._spec = self._spec, None
        return [] if spec is None else [spec]

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        for _, metrics in reports:
            print(
                f"epoch {metrics.epoch + 1}: train loss {metrics.train_loss:.4f} ({metrics.train_loss_as_trained:.4f} "
                f"as trained), {_validated(metrics, self.monitor)}"
            )
        return [False for _ in reports]

    def tell(self, results: Sequence[TrialResult]) -> None:
        (self.result,) = results


def retrain(config: Config) -> int:
    """Train the configuration under `retrain` and keep its best epoch; return the exit status."""
    engines.use_precision(config)
    source = build.data(config, build.device(config))
    sites = build.sites(config, source)
    _check_sites(config, [site.name for site in sites])
    folder = build.output_folder(config)
    wanted = config.retrain
    spec = TrialSpec(
        wanted.arm,
        0,
        wanted.seed,
        {**_off(config, sites), **wanted.rates},
        wanted.lr,
        wanted.weight_decay,
        hyperparameters=wanted.params,
        phase="confirm",
        configuration=0,
    )
    path = folder / f"{wanted.arm}-{wanted.seed}.ckpt"
    interruption = Interruption()
    feed = _OneTrial(spec, interruption, build.monitor(config))
    with interruption.listening():
        SequentialEngine(build.module_factory(config, source), source, build.settings(config), lambda _: path).run(feed)
    return _tell(config, source, feed.result, path, interruption)


def _off(config: Config, sites: tuple[Site, ...]) -> dict[str, float]:
    """Return the rates that switch a user module's own dropout off in an arm without it."""
    if not user_module.is_user_module(config) or ARMS[config.retrain.arm].dropout != "off":
        return {}
    return {site.name: 0.0 for site in sites if site.controllable}


def _check_sites(config: Config, known: list[str]) -> None:
    if ARMS[config.retrain.arm].dropout == "off" and any(config.retrain.rates.values()):
        raise InputError(f"retrain.rates must be empty for arm {config.retrain.arm}, got {config.retrain.rates}")
    for site in config.retrain.rates:
        if site not in known:
            raise InputError(
                f'retrain.rates must name sites of model={config.model.name}, got "{site}"{close_match(site, known)}: '
                f"its sites are {', '.join(known)}"
            )


def _tell(
    config: Config, source: build.Source, result: TrialResult | None, path: Path, interruption: Interruption
) -> int:
    if interruption.requested:
        print("stopped: nothing was kept")
        return STOPPED
    if result is None or result.best is None or result.state == "FAIL":
        raise RunError(f"the training failed ({result.reason if result else 'nothing was trained'})")
    best = result.best
    print(f"best epoch {best.epoch + 1}: {_validated(best, build.monitor(config))}")
    command = reload_command(str(path), config, result.spec.arm, build.carried(config, source, result.spec))
    if command:
        print(f"to load it:\n  {command}")
    return 0


def _validated(metrics: EpochMetrics, monitor: Monitor) -> str:
    if monitor.is_val_loss and not math.isnan(metrics.val_acc):
        return f"validation loss {metrics.val_loss:.4f}, accuracy {metrics.val_acc:.4f}"
    return f"{monitor.name} {monitor.objective(metrics.objective):.4f}"
