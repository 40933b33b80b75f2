"""What trains the trials: how that is chosen, and in how many processes and threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.records import ARMS, TrialSpec
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.params import alike_in_rows, never_alike, programs
from dropsearch.experiment.standstill import named_if_still
from dropsearch.study.selection import retrained_at_once
from dropsearch.training.engines import ENGINES
from dropsearch.training.in_process import InProcessEngine
from dropsearch.training.multiprocess import ProcessEngine, cores
from dropsearch.training.planning.compatibility import incompatibility
from dropsearch.training.planning.equivalence import equivalence_specs
from dropsearch.training.planning.plan import Plan, make_plan
from dropsearch.training.protocols import CheckpointPath, Engine, RowDataSource
from dropsearch.training.trainers import make_trainer, quiet_lightning


def plan(context: ExperimentContext) -> Plan:
    """Choose how trials are trained.

    Raises:
        InputError: `engine=vectorized` is asked for, and what it gives differs from trials alone.
    """
    asked = context.config.engine.name
    if asked not in ("auto", "vectorized"):
        return Plan(asked, 1, f"engine={asked}")
    with named_if_still("comparing vectorized with sequential training"):
        return _compared(context)


def _compared(context: ExperimentContext) -> Plan:
    """Return the plan that a comparison of both ways of training gives."""
    config, searched = context.config, context.params
    together = [alike_in_rows(searched, program) for program in programs(searched)]
    pairs = [_pair(context, name, values) for name in config.arms for values in together]
    rows = context.source.in_rows()
    reason = _obstacle(context, rows, pairs)
    if reason and config.engine.name == "vectorized":
        raise InputError(
            f"engine=vectorized needs a module and data that can train vectorized, but {reason}: use "
            "engine=auto or engine=sequential"
        )
    if reason:
        return Plan("sequential", 1, reason)
    return make_plan(
        context.make_module,
        rows or context.source,  # type: ignore[arg-type]  # the sequential engine takes any source
        context.settings,
        pairs,
        engine=config.engine.name,
        width=None if config.engine.width == "auto" else int(config.engine.width),
        processes=context.processes,
        unstackable=never_alike(searched),
        max_open=most_rows(config),
    )


def most_at_once(config: Config) -> int | None:
    """Return how many trials of a search may be open at once, None for any number.

    A sampler that learns proposes its first trials blindly, however many are open; after those, at most a
    quarter of the study at once, so that most of it is proposed with something learnt. A pruner learns too.
    """
    if config.sampler.name == "random" and config.pruner.name == "none":
        return None
    return max(config.sampler.n_startup_trials, config.study.n_trials // 4)


def most_rows(config: Config) -> int:
    """Return how many trials are ever open at once, in a search or in a confirmation."""
    searched = most_at_once(config) or config.study.n_trials
    return max(min(searched, config.study.n_trials), confirmed_at_once(config))


def confirmed_at_once(config: Config) -> int:
    """Return how many retrainings of an arm's confirmation are open at once."""
    confirm = config.confirm
    return retrained_at_once(min(confirm.top_k, config.study.n_trials), confirm.seeds, confirm.screening_seeds)


def _pair(
    context: ExperimentContext, arm: str, values: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> tuple[TrialSpec, TrialSpec]:
    dropping = ARMS[arm].dropout != "off"
    pair = equivalence_specs(arm, context.sites, dropping=dropping)
    more = {} if dropping else {"rates": context.rates_off}
    one, other = (
        dataclasses.replace(spec, hyperparameters=each, **more) for spec, each in zip(pair, values, strict=True)
    )
    return one, other


def _obstacle(
    context: ExperimentContext, rows: RowDataSource | None, pairs: Sequence[tuple[TrialSpec, TrialSpec]]
) -> str:
    """Return why trials have to be trained alone, or an empty string."""
    if rows is None:
        return context.source.incompatibility
    if given := sorted(context.settings.trainer()):
        return f"trainer.{given[0]} holds for trials that train sequentially"
    make, shared = context.make_module, context.settings
    with quiet_lightning():
        trainer = make_trainer(make(pairs[0][0]), shared, [], max_epochs=shared.max_epochs)
    return next(filter(None, (incompatibility(make, rows, one, shared.monitor, trainer) for one, _ in pairs)), "")


def engine(context: ExperimentContext, chosen: Plan, checkpoint_path: CheckpointPath) -> Engine:
    """Return what trains the trials on this machine: in forked processes, or in this one."""
    one = one_engine(context, chosen, checkpoint_path)
    return ProcessEngine(one, context.processes) if context.processes > 1 else InProcessEngine(one, context.folder)


def one_engine(context: ExperimentContext, chosen: Plan, checkpoint_path: CheckpointPath) -> Engine:
    """Return what trains the trials in one process."""
    make = ENGINES[chosen.engine]
    return make(context.make_module, context.source, context.settings, chosen, checkpoint_path)


def use_precision(matmul: str) -> None:
    """Let torch compute float32 products as precisely as `trainer.matmul` says, in this process and its forks."""
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = matmul != "highest"  # convolutions, which the first leaves alone


def use_threads(context: ExperimentContext) -> None:
    """Let torch use one thread where several processes train: what is measured here is then what they will do."""
    if context.processes > 1:
        torch.set_num_threads(1)


@contextmanager
def all_cores() -> Iterator[None]:
    """Let torch use every core while the context lasts: nothing trains beside it."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(before, cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)
