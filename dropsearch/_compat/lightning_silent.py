"""A logger, a progress bar and a checkpoint callback that write and print nothing, for modules that access theirs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any


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
