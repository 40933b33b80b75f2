"""Parts of a Trainer that leave no trace: a logger, a progress bar, a checkpoint callback, and a validation aside.

And protection of the signal handlers that a Trainer replaces or resets.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from lightning import Callback, LightningModule, Trainer


def silent_logger(package: str) -> Any:
    """Return a logger of a Lightning package that stores only the last value of each metric, in `metrics`.

    Metrics arrive through `log_metrics` or the `experiment` APIs of TensorBoard, Weights & Biases and MLflow.
    """
    base: Any = import_module(f"{package}.loggers.logger").DummyLogger

    class SilentLogger(base):
        def __init__(self) -> None:
            super().__init__()
            self.metrics: dict[str, float] = {}
            self._silent_experiment = _SilentExperiment(self.metrics)

        @property
        def experiment(self) -> _SilentExperiment:
            return self._silent_experiment

        def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
            _keep(self.metrics, metrics)

    return SilentLogger()


def without_idle_hooks(callback: Any, kept: tuple[str, ...] | None = None) -> Any:
    """Let a Trainer skip the hooks of a callback that do nothing, each of which costs it time; return the callback.

    Those in `kept` stay, or by default those that its class overrides.
    """
    base: Any = next(kind for kind in type(callback).__mro__ if kind.__name__ == "Callback")
    for name in _hooks_of(base):
        if name not in kept if kept is not None else getattr(type(callback), name) is getattr(base, name):
            vars(callback)[name] = None
    return callback


@cache
def _hooks_of(base: type) -> tuple[str, ...]:
    """Return the hooks that a Trainer does not call where they are None."""
    called_anyway = ("on_save_checkpoint", "on_load_checkpoint")
    hooks = (name for name in dir(base) if name.startswith("on_") and name not in called_anyway)
    return ("setup", "teardown", *hooks)


def silent_progress_bar(package: str) -> Any:
    """Return a progress bar that draws nothing."""
    base: Any = import_module(f"{package}.callbacks").ProgressBar

    class SilentProgressBar(base):
        def disable(self) -> None: ...

        def enable(self) -> None: ...

    return without_idle_hooks(SilentProgressBar(), kept=("setup",))


def silent_checkpoint(package: str) -> Any:
    """Return a checkpoint callback that saves nothing."""
    checkpoint = import_module(f"{package}.callbacks").ModelCheckpoint(save_top_k=0)
    return without_idle_hooks(checkpoint, kept=("setup",))


class _SilentExperiment:
    def __init__(self, metrics: dict[str, float]) -> None:
        self._metrics = metrics

    def add_scalar(self, tag: str, scalar_value: Any, *_: Any, **__: Any) -> None:
        _keep(self._metrics, {tag: scalar_value})

    def log_metric(self, *args: Any, **kwargs: Any) -> None:
        # MLflow's client takes the run id first; Comet's takes no run id.
        words = [*args, *kwargs.values()]
        at = 1 if len(words) > 2 and isinstance(words[1], str) else 0
        _keep(self._metrics, dict([words[at : at + 2]]) if len(words) > at + 1 else {})

    def log(self, values: Any = None, *_: Any, **__: Any) -> None:
        _keep(self._metrics, values if isinstance(values, Mapping) else {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ignore


def _ignore(*_: Any, **__: Any) -> None:
    """Accept any arguments and do nothing."""


def _keep(metrics: dict[str, float], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name == "epoch" or isinstance(value, str | bytes):
            continue
        try:
            metrics[str(name)] = float(value)
        except (TypeError, ValueError, RuntimeError):  # an image, a table, a tensor of several numbers
            continue


def validation_beside(package: str, trainer: Any, batches: Any) -> Callable[[Any], dict[str, float]]:
    """Return what validates a module by the loop that a Trainer's fit validates with, and leaves no trace in the fit.

    The function takes a module on the Trainer's device and returns what it logs, by name. The module meets no callback,
    no optimizer and a silent logger. Batches are an iterable, or a list of them for a module that takes several.
    """
    states = import_module(f"{package}.trainer.states")
    loops = import_module(f"{package}.loops.evaluation_loop")
    fitting, validating = states.TrainerFn.FITTING, states.RunningStage.VALIDATING
    loop = loops._EvaluationLoop(trainer, fitting, validating, verbose=False, inference_mode=False)
    loop._combined_loader = combined = loops.CombinedLoader(batches, "sequential")
    loop._max_batches = [float("inf")] * len(combined.flattened)
    vars(loop)["setup_data"] = _nothing
    profiler = import_module(f"{package}.profilers").PassThroughProfiler()
    logger = silent_logger(package)

    def validate(module: Any) -> dict[str, float]:
        connector, strategy = trainer._logger_connector, trainer.strategy
        held = [(trainer.fit_loop.epoch_loop, {"val_loop": loop})]
        held += [(trainer, {"callbacks": [], "profiler": profiler, "_loggers": [logger]})]
        held += [(trainer, {"should_stop": False})]
        held += [(strategy, {"_lightning_module": module, "_model": module})]
        held += [(strategy, {"_optimizers": [], "_lightning_optimizers": [], "lr_scheduler_configs": []})]
        held += [(connector, {"_progress_bar_metrics": {}, "_logged_metrics": {}, "_callback_metrics": {}})]
        held += [(connector, {"_current_fx": None, "_first_loop_iter": None})]
        held += [(trainer.state, {"stage": validating})]
        module._trainer = trainer
        with _set(held), torch.no_grad():
            try:
                loop.run()
                return {name: float(value) for name, value in trainer.callback_metrics.items()}
            finally:
                _forget(loop)

    return validate


@contextmanager
def _set(held: list[tuple[Any, dict[str, Any]]]) -> Iterator[None]:
    """Set attributes of objects that have them, and put them back at the end."""
    before = [(each, {name: vars(each)[name] for name in values}) for each, values in held]
    try:
        for each, values in held:
            vars(each).update(values)
        yield
    finally:
        for each, values in before:
            vars(each).update(values)


def _forget(loop: Any) -> None:
    """Release the batches and values of a pass; the loop's own teardown would first move the values to the CPU."""
    if loop._data_fetcher is not None:
        loop._data_fetcher.teardown()
        loop._data_fetcher = None
    loop._results = type(loop._results)(training=False)


def _nothing() -> None:
    """Keep the loaders that are set."""


_CONNECTORS = tuple(
    f"{package}.trainer.connectors.signal_connector" for package in ("lightning.pytorch", "pytorch_lightning")
)
_CHANGED = (signal.SIGTERM, *(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)))
"""The signals whose handlers a Trainer may change."""


def _handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in _CHANGED}


@contextmanager
def other_handlers_kept() -> Iterator[None]:
    """Make a Trainer restore only the handlers of signals that it changes.

    Lightning restores every handler to what `signal.getsignal` returned. That function does not see handlers set by C
    code, such as those of `faulthandler`, so a Trainer resets them to the default.
    """
    with ExitStack() as patches:
        for connector in (sys.modules[name] for name in _CONNECTORS if name in sys.modules):
            kind = connector._SignalConnector
            patches.enter_context(mock.patch.object(kind, "_get_current_signal_handlers", staticmethod(_handlers)))
        yield


class KeepSigtermHandler(Callback):
    """Callback that restores the SIGTERM handler installed before `fit`.

    Lightning's own handler raises `SystemExit` with status 0 after the current batch. A run of many trials must first
    close them.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the handler; Lightning installs its own between this hook and the next."""
        self._handler: Any = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handler. Only the main thread can set one, and only there does Lightning replace it."""
        if threading.current_thread() is threading.main_thread() and self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
