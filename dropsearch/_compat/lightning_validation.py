"""A validation of another module and on other batches, in the midst of a Trainer's fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

from dropsearch._compat.lightning_silent import silent_logger


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
