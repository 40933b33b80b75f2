"""What trains the trials: how that is chosen, and in how many processes and threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dropsearch.config.params import ranges
from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.records import ARMS, Site, TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.experiment import build, user_module
from dropsearch.experiment.build import Source
from dropsearch.experiment.params import in_one_array, never_alike, programs
from dropsearch.training.multiprocess import ProcessEngine, can_fork, cores
from dropsearch.training.planning.compatibility import incompatibility
from dropsearch.training.planning.equivalence import equivalence_specs
from dropsearch.training.planning.plan import Plan, make_plan
from dropsearch.training.protocols import CheckpointPath, Engine
from dropsearch.training.sequential import SequentialEngine, quiet_lightning
from dropsearch.training.trainers import make_trainer
from dropsearch.training.vectorized.engine import VectorizedEngine


def plan(config: Config, source: Source, found: tuple[Site, ...]) -> Plan:
    """Choose how trials are trained.

    Raises:
        InputError: `engine=vectorized` is asked for, and what it gives differs from trials alone.
    """
    searched = ranges(config)
    together = [in_one_array(searched, program) for program in programs(searched)]
    pairs = [_pair(config, name, found, values) for name in config.arms for values in together]
    if user_module.is_user_module(config) and config.engine.name != "sequential":
        reason = _obstacle(config, source, pairs)
        if reason and config.engine.name == "vectorized":
            raise InputError(
                f"engine=vectorized needs a module and data that can be rows of an array, but {reason}: use "
                "engine=auto or engine=sequential"
            )
        if reason:
            return Plan("sequential", 1, reason)
    return make_plan(
        build.module_factory(config, source),
        _rows(source),
        build.settings(config),
        pairs,
        engine=config.engine.name,
        width=None if config.engine.width == "auto" else int(config.engine.width),
        processes=process_count(config, source),
        unstackable=never_alike(searched),
        max_open=most_rows(config),
    )


def most_at_once(config: Config) -> int | None:
    """Return how many trials of a search may be open at once, None for any number.

    A sampler that learns proposes its first trials blindly, however many are open; after those, at most a
    quarter of the study at once, so that most of it is proposed with something learnt.
    """
    if config.sampler.name == "random":
        return None
    return max(config.sampler.n_startup_trials, config.study.n_trials // 4)


def most_rows(config: Config) -> int:
    """Return how many trials are ever open at once, in a search or in a confirmation."""
    searched = most_at_once(config) or config.study.n_trials
    return max(min(searched, config.study.n_trials), config.confirm.top_k * config.confirm.seeds)


def _pair(
    config: Config, arm: str, found: tuple[Site, ...], values: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> tuple[TrialSpec, TrialSpec]:
    dropping = ARMS[arm].dropout != "off"
    one, other = equivalence_specs(arm, found, dropping=dropping)
    if not dropping and user_module.is_user_module(config):
        off = {site.name: 0.0 for site in found if site.controllable}  # the module has rates of its own
        one, other = dataclasses.replace(one, rates=off), dataclasses.replace(other, rates=off)
    return dataclasses.replace(one, hyperparameters=values[0]), dataclasses.replace(other, hyperparameters=values[1])


def _obstacle(config: Config, source: Source, pairs: Sequence[tuple[TrialSpec, TrialSpec]]) -> str:
    """Return why trials of a module of the user's own have to be trained alone, or an empty string."""
    if isinstance(source, UserData) and source.rows is None:
        return source.incompatibility
    shared = build.settings(config)
    given = sorted(shared.trainer())
    if given:
        return f"trainer.{given[0]} is honoured where trials train alone"
    factory = build.module_factory(config, source)
    with quiet_lightning():
        trainer = make_trainer(factory(pairs[0][0]), shared, [], max_epochs=config.trainer.max_epochs)
    return next(
        filter(None, (incompatibility(factory, _rows(source), one, shared.monitor, trainer) for one, _ in pairs)), ""
    )


def _rows(source: Source) -> Any:
    """Return the source as an array takes it."""
    return source.in_rows() if isinstance(source, UserData) and source.rows is not None else source


def engine(config: Config, source: Source, chosen: Plan, checkpoint_path: CheckpointPath) -> Engine:
    """Return what trains the trials."""
    factory, shared = build.module_factory(config, source), build.settings(config)
    one: Engine
    if chosen.engine == "sequential":
        one = SequentialEngine(factory, source, shared, checkpoint_path, chosen.reason)
    else:
        shared = dataclasses.replace(shared, convolutions=chosen.convolutions)
        one = VectorizedEngine(factory, _rows(source), shared, chosen.width, checkpoint_path)
    count = process_count(config, source)
    return ProcessEngine(one, count) if count > 1 else one


def use_precision(config: Config) -> None:
    """Let torch compute float32 products as precisely as `trainer.matmul` says, in this process and its forks."""
    torch.set_float32_matmul_precision(config.trainer.matmul)
    torch.backends.cudnn.allow_tf32 = config.trainer.matmul != "highest"  # convolutions, which the first leaves alone


def use_threads(config: Config, source: Source) -> None:
    """Let torch use one thread where several processes train: what is measured here is then what they will do."""
    if process_count(config, source) > 1:
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


def process_count(config: Config, source: Source) -> int:
    """Return how many processes train: those asked for, else one a core on a CPU and one on a GPU.

    One where the user's loaders have workers, or the Trainer arguments, whose callbacks may write to one place.
    """
    wanted = config.engine.processes
    if wanted != "auto":
        return int(wanted)
    if user_module.is_user_module(config) and (
        user_module.trainer_arguments(config)() or (isinstance(source, UserData) and source.uses_workers)
    ):
        return 1
    on_cpu = build.device(config).type == "cpu"
    return cores() if on_cpu and config.engine.name != "sequential" and can_fork() else 1
