"""Selection of the engine, and of the numbers of processes and threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.global_state import changed, torch_threads
from dropsearch.core.records import ARMS, TrialSpec
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.params import alike_in_rows, never_alike, programs
from dropsearch.experiment.watchdog import named_if_still
from dropsearch.study.selection import retrained_at_once
from dropsearch.training.engines import ENGINES, InProcessEngine
from dropsearch.training.multiprocess import ProcessEngine
from dropsearch.training.planning.compatibility import incompatibilities, not_of_rows
from dropsearch.training.planning.equivalence import equivalence_specs
from dropsearch.training.planning.plan import Plan, make_plan
from dropsearch.training.protocols import CheckpointPath, DataSource, Engine
from dropsearch.training.trainers import make_trainer, quiet_lightning


@named_if_still("comparing vectorized with sequential training")
def plan(context: ExperimentContext) -> Plan:
    """Select how trials are trained.

    Raises:
        InputError: `engine=vectorized` is requested, but its results differ from sequential training.
    """
    asked = context.config.engine.name
    if asked not in ("auto", "vectorized"):
        return Plan(asked, 1, f"engine={asked}")
    config, searched = context.config, context.params
    together = [alike_in_rows(searched, program) for program in programs(searched)]
    pairs = [_pair(context, name, values) for name in config.arms for values in together]
    rows = context.source.in_rows()
    reasons = tuple(dict.fromkeys(_obstacles(context, rows, pairs)))
    if reasons and config.engine.name == "vectorized":
        raise InputError(
            f"engine=vectorized needs a module and data that can train vectorized, but {reasons[0]}: use "
            "engine=auto or engine=sequential"
        )
    if reasons:
        return Plan("sequential", 1, reasons[0], further_reasons=reasons[1:])
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
    """Return the maximum number of open trials of a search; None for no limit.

    An adaptive sampler proposes its startup trials at random. After those, at most a quarter of the study is open at
    the same time, so that most proposals use results. The same holds for pruners.
    """
    if config.sampler.name == "random" and config.pruner.name == "none":
        return None
    return max(config.sampler.n_startup_trials, config.study.n_trials // 4)


def most_rows(config: Config) -> int:
    """Return the maximum number of open trials in the search and the confirmation."""
    searched = most_at_once(config) or config.study.n_trials
    return max(min(searched, config.study.n_trials), confirmed_at_once(config))


def confirmed_at_once(config: Config) -> int:
    """Return the maximum number of open retrainings of an arm."""
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


def _obstacles(
    context: ExperimentContext, rows: DataSource | None, pairs: Sequence[tuple[TrialSpec, TrialSpec]]
) -> Iterator[str]:
    """Yield all reasons why trials must be trained sequentially."""
    yield from context.source.obstacles
    yield from not_of_rows(context.settings.trainer())
    make, shared = context.make_module, context.settings
    with quiet_lightning():
        trainer = make_trainer(make(pairs[0][0]), shared, [], max_epochs=shared.max_epochs)
    for one, _ in pairs:
        yield from incompatibilities(make, rows, one, shared.monitor, trainer)


def engine(context: ExperimentContext, chosen: Plan, checkpoint_path: CheckpointPath) -> Engine:
    """Return the engine on this machine: in forked processes, or in this process."""
    one = one_engine(context, chosen, checkpoint_path)
    return ProcessEngine(one, context.processes) if context.processes > 1 else InProcessEngine(one, context.folder)


def one_engine(context: ExperimentContext, chosen: Plan, checkpoint_path: CheckpointPath) -> Engine:
    """Return the engine of one process."""
    make = ENGINES[chosen.engine]
    return make(context.make_module, context.source, context.settings, chosen, checkpoint_path)


@contextmanager
def torch_settings_kept() -> Iterator[None]:
    """Put back the number of threads and the precision of products when the context exits."""
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    with torch_threads(torch.get_num_threads()), changed(cudnn, allow_tf32=cudnn.allow_tf32):
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(matmul)


def use_precision(matmul: str) -> None:
    """Set the precision of float32 products to `trainer.matmul`, in this process and its forks."""
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = matmul != "highest"  # for convolutions, which the call above does not affect


def use_threads(context: ExperimentContext) -> None:
    """Use one torch thread if several processes train, so that measurements here apply to them."""
    if context.processes > 1:
        torch.set_num_threads(1)
