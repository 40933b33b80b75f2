"""Selection of the engine, and where it trains: in this process, in others of this machine, or on a Ray cluster."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.global_state import changed, torch_threads
from dropsearch.core.processes import cores
from dropsearch.core.records import ARMS, TrialSpec
from dropsearch.experiment.build import Source, data_source
from dropsearch.experiment.checkpoints import checkpoint_path
from dropsearch.experiment.context import ExperimentContext, alone, build_context
from dropsearch.experiment.params import alike_in_rows, never_alike, programs
from dropsearch.experiment.watchdog import named_if_still
from dropsearch.study.selection import retrained_at_once
from dropsearch.training.crews import SpawnedCrew
from dropsearch.training.engines import ENGINES, InProcessEngine
from dropsearch.training.multiprocess import CrewEngine, ProcessEngine
from dropsearch.training.planning.compatibility import incompatibilities, not_of_rows
from dropsearch.training.planning.equivalence import equivalence_specs
from dropsearch.training.planning.plan import Plan, make_plan
from dropsearch.training.protocols import CheckpointPath, DataSource, Engine, describe_engine
from dropsearch.training.ray_crew import RayCrew, RayEngine, connect, fetched, has_gpus, shared
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


def run_engine(context: ExperimentContext, plan: Plan) -> Engine:
    """Return the engine of a run: on a Ray cluster, on several GPUs, or in processes of this machine.

    Forked processes can use one torch thread only, since OpenMP's threads do not survive a fork.
    """
    if context.config.cluster.name == "ray":
        return on_ray(context, plan)
    if context.processes > 1 and (context.threads or context.device.type == "cuda" or context.threads_each > 1):
        return spawned(context, plan)
    return engine(context, plan, partial(checkpoint_path, context.checkpoints))


def spawned(context: ExperimentContext, plan: Plan) -> Engine:
    """Return an engine in several spawned processes, each with a GPU if there are GPUs."""
    make, device = partial(_made, alone(context.config), plan, context.checkpoints), context.device.type
    asked = context.config.engine.threads
    crew = (
        SpawnedCrew(make, environments(context.processes), threads=0 if asked == "auto" else int(asked))
        if device == "cuda"
        else SpawnedCrew(make, [{}] * context.processes, threads=context.threads_each)
    )
    return CrewEngine(crew, partial(_describe, plan, device))


def environments(processes: int) -> list[dict[str, str]]:
    """Return the environment variables that assign each process one GPU, in turn."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = given.split(",") if given else [str(index) for index in range(torch.cuda.device_count())]
    return [{"CUDA_VISIBLE_DEVICES": visible[index % len(visible)]} for index in range(processes)]


def on_ray(context: ExperimentContext, plan: Plan) -> Engine:
    """Return an engine whose workers are actors of a Ray cluster; it connects at the first training."""
    cluster = context.config.cluster
    return RayEngine(partial(_crew, context, plan), partial(_describe, plan, context.device.type), cluster.address)


def _crew(context: ExperimentContext, plan: Plan) -> RayCrew:
    config, cluster = context.config, context.config.cluster
    targets = (config.model._target_, config.data._target_)
    from_here = not all(target.startswith("dropsearch.") for target in targets)  # a class of the working folder
    connect(cluster.address, cores(), Path.cwd() if from_here else None)
    on_gpu = config.trainer.accelerator != "cpu" and has_gpus()
    # Measurements of this machine hold for the same device; otherwise each actor measures.
    known = plan if on_gpu == (context.device.type == "cuda") else None
    make = partial(_made_in_actor, alone(config), known, _shared_data(context))
    count = None if cluster.workers == "auto" else int(cluster.workers)
    return RayCrew(make, context.checkpoints, count, on_gpu)


def _shared_data(context: ExperimentContext) -> Any:
    """Put the data into the object store; return None if that fails, so that each actor reads the data."""
    config = context.config
    try:
        return shared(data_source(config, torch.device("cpu")))
    except InputError:
        raise
    except Exception as error:  # pickling user data may raise anything
        if config.data.made_by is not None:
            raise InputError(
                f"cluster=ray needs data that can be pickled, but {type(error).__name__}: "
                f"{str(error)[:200]}: set data._target_ on the command line"
            ) from error
        return None


def _made(config: Config, known: Plan | None, folder: Path, source: Source | None = None) -> Engine:
    """Return the engine for this process."""
    context = build_context(config, source)
    use_precision(config.trainer.matmul)
    return one_engine(context, known or plan(context), partial(checkpoint_path, folder))


def _made_in_actor(config: Config, plan: Plan | None, data: Any, folder: Path) -> Engine:
    """Return the engine for a Ray actor, with data from the object store."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # contains the user's code
    source = None if data is None else fetched(data)
    return _made(config, plan, folder, source)


def _describe(plan: Plan, device: str, processes: int) -> str:
    reason = plan.reason if plan.engine == "sequential" else ""
    return describe_engine(plan.engine, device, plan.width, processes=processes, reason=reason)
