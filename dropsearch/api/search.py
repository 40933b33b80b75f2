"""`dropsearch.search`, the search for scripts and notebooks."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dropsearch.api.arguments import (
    address,
    bounds,
    by_arm,
    check_objects,
    logger_argument,
    mapping,
    named_overrides,
    put_objects,
    seconds,
    whole,
    with_trainer,
    word,
    words,
)
from dropsearch.api.override_checks import check_overrides
from dropsearch.api.result import SearchResult
from dropsearch.config.check import check
from dropsearch.config.compose import compose_overrides, expand_homes
from dropsearch.config.schema import DEFAULT_ARMS, Config, SitesConfig
from dropsearch.core.environment import each_warning_once, one_run
from dropsearch.core.errors import InputError
from dropsearch.datasets.given_loaders import GivenLoaders

_PLACEHOLDER = "python"


@one_run()
def search(
    make_module: Callable[..., Any],
    datamodule: Any = None,
    *,
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    test_dataloaders: Any = None,
    n_trials: int = 30,
    monitor: str = "val_loss",
    mode: str = "min",
    unit: str = "",
    arms: Sequence[str] = DEFAULT_ARMS,
    max_epochs: int = 20,
    seed: int = 0,
    name: str | None = None,
    output_dir: str | Path | None = None,
    tracking: str | Sequence[str] = "none",
    tracking_uri: str | None = None,
    logger: Any = None,
    engine: str = "auto",
    sampler: Any = None,
    pruner: Any = None,
    storage: Any = None,
    warm_start: str | Path | None = None,
    timeout: float | None = None,
    budget: str | None = None,
    accelerator: str = "auto",
    confirm_top_k: int = 3,
    confirm_seeds: int = 10,
    lr: tuple[float, float] | None = None,
    weight_decay: tuple[float, float] | None = None,
    rates: tuple[float, float] | None = None,
    params: Mapping[str, Any] | None = None,
    arm_args: Mapping[str, Mapping[str, Any]] | None = None,
    batchnorm: str | None = None,
    insert: str | type | Sequence[str | type] | None = None,
    kinds: Mapping[str, str] | None = None,
    callbacks: Callable[[], Sequence[Any]] | Sequence[Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> SearchResult:
    """Search the dropout rates of your LightningModule without changing its code.

    A further call with the same `output_dir` continues the study until it has `n_trials` trials.

    Args:
        make_module: Builds a new module per call: ``() -> LightningModule``, or a function of searched arguments:
            ``lr``, ``weight_decay`` and keys of `params`. It may be the LightningModule class itself.
        datamodule: A LightningDataModule with `train_dataloader`, `val_dataloader` and, optionally, `test_dataloader`.
            None if loaders are given or the module defines these methods.
        train_dataloaders: Training batches instead of a data module, as for `Trainer.fit`.
        val_dataloaders: Validation batches: a loader or a list of loaders.
        test_dataloaders: Test batches, optional.
        n_trials: Total number of trials per arm.
        monitor: The metric to optimize, as the module logs it in validation.
        mode: Whether to minimize ("min") or maximize ("max") the metric.
        unit: The unit of the metric in reports, such as ``"%"``; values are shown as logged.
        arms: The arms to compare.
        max_epochs: Number of epochs per trial.
        seed: Determines the seeds of all trials and the random numbers in the data module's `setup`.
        name: Name of the module in reports; by default the name of its class or function.
        output_dir: Folder for all files; outputs/NAME-DATA by default.
        tracking: mlflow, wandb, tensorboard or none, or a list of them.
        tracking_uri: MLflow's tracking URI; mlflow.db in `output_dir` by default.
        logger: A Lightning logger, which receives one step per finished trial; or a function from `TrialSpec` to a
            logger, which receives the curves of that trial.
        engine: auto, vectorized or sequential.
        sampler: tpe (the default), random or gp, or an Optuna sampler, such as ``TPESampler(n_startup_trials=20)``. An
            object draws from its own random state; a named sampler makes each trial a function of `seed`.
        pruner: median (the default), hyperband or none, or an Optuna pruner.
        storage: An Optuna storage, its URL, or the path of a journal file; study.journal in `output_dir` by default.
        warm_start: An earlier study, whose best configurations are among the first trials of each arm and are trained
            anew: its output directory, its storage, or its name in `storage`.
        timeout: Seconds after which the search of each arm starts no new trial; running trials finish.
        budget: Limit of the whole run, such as ``"20m"``, ``"2h"`` or ``"500 trials"``. It determines `n_trials`,
            `confirm_top_k` and `confirm_seeds`.
        accelerator: auto, cpu or gpu.
        confirm_top_k: Number of the best configurations of each arm to retrain.
        confirm_seeds: Number of fresh seeds for the best configuration. The others are retrained on the first four of
            these seeds, or on all with ``overrides=["confirm.screening_seeds=10"]``.
        lr: Range of the learning rate.
        weight_decay: Range of the weight decay.
        rates: Range of the dropout rates; zero is always included.
        params: Ranges of other arguments of `make_module`: a list of values, a pair of numbers (integers if both are),
            or Hydra's sweep syntax: ``{"width": [32, 64], "momentum": (0.5, 0.99)}``. Further keys are
            ``"trainer.gradient_clip_val"`` and, if the module's optimizer has them, ``"optimizer.momentum"``,
            ``"optimizer.betas"`` and ``"optimizer.nesterov"``.
        arm_args: Arguments of `make_module` by arm, such as ``{"batchnorm": {"norm": "batch"}}``.
        batchnorm: "identity" replaces the module's BatchNorm by an identity in the arms without BatchNorm.
        insert: Where to insert dropout, as for `insert_dropout`: ``"after_activation"``, a name, a pattern, a type of
            submodules, or a list of these.
        kinds: Kinds by site name or pattern that correct inferred ones, as for `dropout_sites`.
        callbacks: Callbacks, or a function that makes new ones for each trial; trials then train sequentially.
        trainer: Further arguments of the Trainer; trials then train sequentially.
        overrides: Further configuration keys, as on the command line: ``["sampler=random"]``.

    Example:
        ``result = dropsearch.search(lambda lr: LitNet(lr=lr), Digits(), n_trials=20, output_dir="out")``; then
        ``print(result)`` shows the answer, and ``result.load_best()`` returns the trained winner.

    Raises:
        InputError: An argument is invalid, or another search goes on in this process; the message says what to do.
        RunError: The training failed.
    """
    optional = {"name": name, "tracking_uri": tracking_uri, "batchnorm": batchnorm}
    optional |= {"lr": lr, "weight_decay": weight_decay, "rates": rates}
    optional |= {"sampler": sampler, "pruner": pruner, "storage": storage, "timeout": timeout, "budget": budget}
    optional |= {"warm_start": warm_start, "insert": insert, "kinds": kinds, "params": params, "arm_args": arm_args}
    check_overrides(overrides, [name for name, value in optional.items() if value is None], mapping("trainer", trainer))
    kept = address(storage)
    check_objects(sampler, pruner, kept)
    given = {"train": train_dataloaders, "val": val_dataloaders, "test": test_dataloaders}
    config = _config(
        make_module,
        _data(make_module, datamodule, given),
        name,
        [*named_overrides(sampler, pruner), *overrides],
    )
    config.study.n_trials = whole("n_trials", n_trials)
    config.trainer = with_trainer(config.trainer, mapping("trainer", trainer))
    config.trainer.max_epochs = whole("max_epochs", max_epochs)
    config.trainer.accelerator = word("accelerator", accelerator)
    config.trainer.made_by = _maker(callbacks)
    config.seed = whole("seed", seed)
    config.monitor, config.mode, config.unit = word("monitor", monitor), word("mode", mode), word("unit", unit)
    config.arms = words("arms", arms)
    config.output_dir = str(output_dir or f"outputs/{config.study.name}")
    config.tracking.name = word("tracking", tracking) if isinstance(tracking, str) else words("tracking", tracking)
    config.tracking.made_by = logger_argument(logger)
    config.engine.name = word("engine", engine)
    config.confirm.top_k = whole("confirm_top_k", confirm_top_k)
    config.confirm.seeds = whole("confirm_seeds", confirm_seeds)
    if tracking_uri is not None:
        config.tracking.uri = word("tracking_uri", tracking_uri)
    if batchnorm is not None:
        config.batchnorm.replace = word("batchnorm", batchnorm)
    if lr is not None:
        config.space.lr = bounds("lr", lr)
    if weight_decay is not None:
        config.space.weight_decay = bounds("weight_decay", weight_decay)
    if rates is not None:
        found = bounds("rates", rates)
        config.space.low, config.space.high = found.low, found.high
    if timeout is not None:
        config.study.timeout = seconds("timeout", timeout)
    if budget is not None:
        config.budget = word("budget", budget)
    if warm_start is not None:
        config.study.warm_start = word("warm_start", address(warm_start))
    if isinstance(kept, str):
        config.study.storage = kept
    config.arm_args |= by_arm("arm_args", arm_args, config.arms)
    config.sites = _sites(config.sites, insert, kinds)
    searched_too = mapping("params", params).items()
    config.space.params.update({key if "." in key else f"model.{key}": ranged for key, ranged in searched_too})
    expand_homes(config)
    check(config)
    put_objects(config, sampler, pruner, kept)

    # torch, lightning and optuna take seconds to import, so arguments are checked first.
    from dropsearch.experiment.module_builder import where_of
    from dropsearch.experiment.preflight import check_prerequisites
    from dropsearch.experiment.tasks.search import searched

    check_prerequisites(config)
    with each_warning_once():
        return SearchResult(searched(config), make_module, insert=where_of(config.sites), storage=config.study.storage)


def _sites(sites: Any, insert: Any, kinds: Mapping[str, str] | None) -> SitesConfig:
    """Return the configuration of sites; types of submodules are represented by their names."""
    if not isinstance(insert, str | type | Sequence | None):
        raise InputError(
            f'insert must be "after_activation", a name, pattern or type of submodules, or a list, got {insert!r}'
        )
    listed = [insert] if isinstance(insert, str | type) else list(insert or ())
    if insert is not None:
        named = [f"{each.__module__}.{each.__qualname__}" if isinstance(each, type) else each for each in listed]
        sites.insert, sites.where = named[0] if isinstance(insert, str | type) else named, listed
    if kinds is not None:
        sites.kinds = dict(mapping("kinds", kinds))
    return sites


def _config(make_module: Any, datamodule: Any, name: str | None, overrides: Sequence[str]) -> Config:
    if not callable(make_module) or _is_module(make_module):
        raise InputError(
            f"make_module must be a function that builds a new LightningModule, got {_described(make_module)}: pass "
            "lambda: MyModule(...)"
        )
    if not hasattr(datamodule, "train_dataloader") or inspect.isclass(datamodule):
        raise InputError(f"datamodule must be a LightningDataModule, got {_described(datamodule)}: pass MyData(...)")
    own = [word for group in ("model", "data") for word in (f"~{group}", f"{group}._target_={_PLACEHOLDER}")]
    config: Any = compose_overrides([*own, "arms=[none]", *overrides])
    config.model.made_by, config.model.name = make_module, name or _name(make_module)
    is_module = not isinstance(datamodule, GivenLoaders)
    config.data.made_by, config.data.name = datamodule, type(datamodule).__name__ if is_module else "loaders"
    if config.study.name == f"{_PLACEHOLDER}-{_PLACEHOLDER}":
        config.study.name = f"{config.model.name}-{config.data.name}"
    return config


def _data(make_module: Any, datamodule: Any, given: Mapping[str, Any]) -> Any:
    """Return the data module, or a substitute that returns given loaders or those of the module."""
    loaders = {name: loader for name, loader in given.items() if loader is not None}
    if not loaders:
        held = datamodule is None and callable(make_module) and not _is_module(make_module) and _may_hold(make_module)
        return GivenLoaders(make_module=partial(_built, make_module)) if held else datamodule
    if datamodule is not None:
        raise InputError(
            f"{next(iter(loaders))}_dataloaders must be left out if a datamodule is given: pass only one of them"
        )
    for name in ("train", "val"):
        if name not in loaders:
            raise InputError(f"{name}_dataloaders must be given together with the other loaders, got None")
    return GivenLoaders(**loaders)


def _may_hold(make_module: Any) -> bool:
    """Return whether a function or class may build modules that define loaders."""
    if not inspect.isclass(make_module):
        return True
    owner = next((kind for kind in make_module.__mro__ if "train_dataloader" in vars(kind)), None)
    return owner is not None and not owner.__module__.startswith(("lightning.", "pytorch_lightning."))


def _built(make_module: Callable[..., Any]) -> Any:
    """Return a module whose loaders are used."""
    from dropsearch.training.adapters.hyperparameters import ARGUMENTS, accepted  # imports torch

    names = accepted(make_module)[0]
    values = {"lr": 1e-3, "weight_decay": 0.0}
    return make_module(**{name: values[key] for key, known in ARGUMENTS.items() for name in known if name in names})


def _is_module(given: Any) -> bool:
    return hasattr(given, "training_step") and not inspect.isclass(given)


def _described(given: Any) -> str:
    return f"the class {given.__name__}" if inspect.isclass(given) else f"a {type(given).__name__}"


def _name(make_module: Any) -> str:
    name = getattr(make_module, "__name__", "module")
    return "module" if name == "<lambda>" else name


def _maker(callbacks: Any) -> Any:
    if callbacks is None or callable(callbacks):
        return callbacks
    listed = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
    for each in listed:
        if not hasattr(each, "on_fit_start"):
            raise InputError(
                f"callbacks must be a list of Lightning callbacks or a function that makes one, got {each!r}: as in "
                "callbacks=[EarlyStopping(...)]"
            )
    # Callbacks have state, so each trial gets copies.
    return lambda: copy.deepcopy(listed)
