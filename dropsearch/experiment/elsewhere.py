"""Engines that are created from the configuration in another process or on another machine."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.processes import cores
from dropsearch.experiment import engines
from dropsearch.experiment.build import Source, data_source
from dropsearch.experiment.checkpoints import checkpoint_path
from dropsearch.experiment.context import ExperimentContext, alone, build_context
from dropsearch.training.crews import SpawnedCrew
from dropsearch.training.multiprocess import CrewEngine
from dropsearch.training.planning.plan import Plan
from dropsearch.training.protocols import Engine, describe_engine
from dropsearch.training.ray_crew import RayCrew, RayEngine, connect, fetched, has_gpus, shared


def run_engine(context: ExperimentContext, plan: Plan) -> Engine:
    """Return the engine of a run: on a Ray cluster, on several GPUs, or in processes of this machine.

    Forked processes can use one torch thread only, since OpenMP's threads do not survive a fork.
    """
    if context.config.cluster.name == "ray":
        return on_ray(context, plan)
    if context.processes > 1 and (context.threads or context.device.type == "cuda" or context.threads_each > 1):
        return spawned(context, plan)
    return engines.engine(context, plan, partial(checkpoint_path, context.checkpoints))


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


def _made(config: Config, plan: Plan | None, folder: Path, source: Source | None = None) -> Engine:
    """Return the engine for this process."""
    context = build_context(config, source)
    engines.use_precision(config.trainer.matmul)
    return engines.one_engine(context, plan or engines.plan(context), partial(checkpoint_path, folder))


def _made_in_actor(config: Config, plan: Plan | None, data: Any, folder: Path) -> Engine:
    """Return the engine for a Ray actor, with data from the object store."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # contains the user's code
    source = None if data is None else fetched(data)
    return _made(config, plan, folder, source)


def _describe(plan: Plan, device: str, processes: int) -> str:
    reason = plan.reason if plan.engine == "sequential" else ""
    return describe_engine(plan.engine, device, plan.width, processes=processes, reason=reason)
