"""Private APIs of the two Lightning packages, `lightning.pytorch` and `pytorch_lightning`."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import Any

PREFIXES = ("lightning.", "pytorch_lightning.")

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")


def is_lightning_class(kind: type) -> bool:
    """Return whether Lightning defines a class."""
    return kind.__module__.startswith(PREFIXES)


@functools.cache
def transfer_hooks(kind: type) -> tuple[str, ...]:
    """Return the hooks that a LightningModule class outside of Lightning defines to change batches on their way."""
    owners = ((name, next((base for base in kind.__mro__ if name in vars(base)), None)) for name in _TRANSFERS)
    return tuple(name for name, owner in owners if owner is not None and not is_lightning_class(owner))


_TRANSFERS = ("on_before_batch_transfer", "on_after_batch_transfer")


def transferred(module: Any, batch: Any, loader: int = 0) -> Any:
    """Return a batch on a module's device as the module's own hooks leave it, which a Trainer calls before a step."""
    for name in transfer_hooks(type(module)):
        batch = getattr(type(module), name)(module, batch, loader)
    return batch


def package_of(module: object) -> str:
    """Return the package that defines a module's LightningModule base class; empty if it has none."""
    bases = (kind for kind in type(module).__mro__ if kind.__name__ == "LightningModule" and is_lightning_class(kind))
    base = next(bases, None)
    if base is None:
        return ""
    return "pytorch_lightning" if base.__module__.startswith("pytorch_lightning.") else "lightning.pytorch"


def trainer_class(package: str) -> type[Any]:
    """Return the Trainer of a package, as `package_of` names it."""
    return import_module(package).Trainer


def idle_trainer(package: str, accelerator: str = "cpu", **options: Any) -> Any:
    """Return a silent Trainer of a package that fits nothing."""
    with quiet_loggers(logging.ERROR), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its warnings concern users who create a Trainer themselves
        return trainer_class(package)(
            accelerator=accelerator, devices=1, plugins=[one_process(package)], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **options,
        )  # fmt: skip


def one_process(package: str = "lightning.pytorch") -> Any:
    """Return a plugin that makes a Trainer treat its process as the only one, also inside a cluster job.

    Without the plugin a Trainer reads SLURM's variables, although SLURM's tasks do not train one model together. With
    ``SLURM_NTASKS=4`` it refuses to train on one device; with ``SLURM_PROCID=1`` it leaves work to rank 0.
    """
    fabric = "lightning_fabric" if package == "pytorch_lightning" else "lightning.fabric"
    environment = import_module(f"{fabric}.plugins.environments").LightningEnvironment()
    environment.set_global_rank(0)
    return environment


def is_cluster(plugin: object) -> bool:
    """Return whether a Trainer plugin is a cluster environment, which describes the other processes."""
    return any(kind.__name__ == "ClusterEnvironment" for kind in type(plugin).__mro__)


def running_hook(module: Any) -> str:
    """Return the name of the hook that a LightningModule is running, such as "validation_step"; empty if none."""
    return module._current_fx_name or ""


@contextmanager
def logging_to(module: Any, log: Callable[..., None], log_dict: Callable[..., None]) -> Iterator[None]:
    """Route a module's logging to two functions instead of its Trainer while the context lasts.

    Overrides of `log` or `log_dict` in the module's class still run; their calls of `super()` are routed.
    """
    given = {"log": log, "log_dict": log_dict}
    base = next((kind for kind in type(module).__mro__ if "log" in vars(kind) and is_lightning_class(kind)), None)
    own = {name: vars(base)[name] for name in given if base and getattr(type(module), name) is not vars(base)[name]}
    if "log" in own:  # Lightning's `log_dict` calls it
        del given["log_dict"]
        own.setdefault("log_dict", vars(base)["log_dict"])
    # Instance attributes shadow methods; `__dict__` is used because nn.Module intercepts setattr.
    placed = {name: function for name, function in given.items() if name not in own}
    before = {name: vars(module)[name] for name in placed if name in vars(module)}
    vars(module).update(placed)
    for name in own.keys() & given.keys():
        setattr(base, name, _of_module(module, given[name], own[name]))
    try:
        yield
    finally:
        for name in placed:
            del vars(module)[name]
        vars(module).update(before)
        for name in own.keys() & given.keys():
            setattr(base, name, own[name])


def _of_module(module: Any, function: Callable[..., None], otherwise: Callable[..., None]) -> Callable[..., None]:
    """Return a method that calls a function for one module, and Lightning's method for any other."""
    return lambda self, *args, **kwargs: (
        function(*args, **kwargs) if self is module else otherwise(self, *args, **kwargs)
    )


@contextmanager
def with_trainer(datamodule: Any) -> Iterator[None]:
    """Attach an idle Trainer to a data module that accesses `self.trainer`, while the context lasts."""
    kinds = [kind for kind in type(datamodule).__mro__ if is_lightning_class(kind)]
    if not kinds or getattr(datamodule, "trainer", kinds) is not None:
        yield
        return
    package = "pytorch_lightning" if kinds[0].__module__.startswith("pytorch_lightning.") else "lightning.pytorch"
    datamodule.trainer = idle_trainer(package)
    try:
        yield
    finally:
        datamodule.trainer = None


@contextmanager
def quiet_loggers(level: int) -> Iterator[None]:
    """Suppress Lightning's log messages below a level while the context lasts."""
    levels = {logger: logger.level for logger in map(logging.getLogger, _LOGGERS)}
    _set_levels(dict.fromkeys(levels, level))
    try:
        yield
    finally:
        _set_levels(levels)


def _set_levels(levels: Mapping[logging.Logger, int]) -> None:
    """Set the levels of loggers; `setLevel`, which visits thousands of loggers, is called at most once."""
    changing = [logger for logger, level in levels.items() if logger.level != level]
    for logger in changing[1:]:
        logger.level = levels[logger]
    for logger in changing[:1]:
        logger.setLevel(levels[logger])


_read = functools.cache(metadata.entry_points)


@contextmanager
def entry_points_once(package: str) -> Iterator[None]:
    """Let Trainers that are created within the context take the entry points that were read for the first of them."""
    fabric = "lightning.fabric" if package.startswith("lightning.") else "lightning_fabric"
    names = vars(import_module(f"{fabric}.utilities.registry"))
    before, names["entry_points"] = names["entry_points"], _read
    try:
        yield
    finally:
        names["entry_points"] = before
