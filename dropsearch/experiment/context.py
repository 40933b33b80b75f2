"""The context of a run, built once from the configuration."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dropsearch.config.check import remember
from dropsearch.config.params import ranges
from dropsearch.config.schema import Config, TrackingConfig
from dropsearch.core.errors import InputError
from dropsearch.core.printable import tell
from dropsearch.core.processes import cores
from dropsearch.core.records import ARMS, Monitor, Range, Site, TrialResult, TrialSpec
from dropsearch.dropout.site_kinds import with_kinds
from dropsearch.experiment import build
from dropsearch.experiment.build import Source
from dropsearch.experiment.checkpoints import read_weights
from dropsearch.experiment.dropout_check import STEPS, RateCheck, check_rates
from dropsearch.experiment.params import check_sites
from dropsearch.experiment.user_module import TrialModules
from dropsearch.experiment.warm_start import warm_started
from dropsearch.experiment.watchdog import named_if_still
from dropsearch.study.search_space import SpaceSettings
from dropsearch.training.adapters.probe import trained_for
from dropsearch.training.crews import pickled
from dropsearch.training.engines import check_engine
from dropsearch.training.multiprocess import can_fork
from dropsearch.training.protocols import TrainerSettings


@dataclass(frozen=True)
class ExperimentContext:
    """The parts of a run."""

    config: Config
    device: torch.device
    settings: TrainerSettings
    """Training settings shared by all trials."""
    source: Source
    modules: TrialModules
    sites: tuple[Site, ...]
    """The model's sites, in the order of a forward pass, with the kinds of `sites.kinds`."""
    params: Mapping[str, Range]
    """Ranges searched in addition to rates, learning rate and weight decay, by configuration key."""
    space: SpaceSettings
    processes: int
    """Number of training processes."""
    threads_each: int
    """Number of torch threads of each of them."""
    threads: tuple[str, ...]
    """Threads because of which this process must not fork, so that processes are spawned."""
    checkpoints: Path
    """Folder of the study's checkpoints, separate from those of other studies in the same output directory."""
    rate_check: RateCheck | None = None
    """The effects of rates in the module; None if the task does not need them."""

    @property
    def monitor(self) -> Monitor:
        """The monitored metric."""
        return self.settings.monitor

    @property
    def folder(self) -> Path:
        """The output directory."""
        return Path(self.config.output_dir)

    @property
    def searching_arms(self) -> list[str]:
        """The arms that have dropout."""
        return [name for name in self.config.arms if ARMS[name].dropout != "off"]

    @property
    def rates_off(self) -> dict[str, float]:
        """Rates of trials in arms without dropout: 0 if the module has its own rates."""
        return {site.name: 0.0 for site in self.sites if site.controllable} if self.modules.has_own_rates else {}

    def make_module(self, spec: TrialSpec) -> Any:
        """Return the module of a trial.

        Raises:
            InputError: The module cannot be built.
            ValueError: It cannot be built with these searched values; only this trial fails.
        """
        try:
            return self.modules.make(spec)
        except InputError as error:
            if not spec.hyperparameters:
                raise
            raise ValueError(str(error)) from error

    def load(self, result: TrialResult, path: Path) -> Any:
        """Return the model of a trial with the weights of its checkpoint, on the CPU, in evaluation mode."""
        weights = read_weights(path, result)
        # Lightning's loader needs the arguments of the user's constructor, which may not be in the file.
        module = self.modules.whole(result.spec)
        module.load_state_dict(weights)
        return module.cpu().eval()

    def validation_scores(self, result: TrialResult, path: Path) -> Sequence[float] | None:
        """Return the monitored metric of a trial's model on each group of validation examples, or None."""
        return self.modules.validation_scores(self.load(result, path))


@named_if_still("reading the data and inspecting the module")
def build_context(config: Config, source: Source | None = None) -> ExperimentContext:
    """Load the data, inspect the module, and return the context of the run.

    Raises:
        InputError: Data or module cannot be used; the model has no sites although an arm searches rates; its sites
            change with other searched values; or no rate has an effect.
    """
    check_engine(config.engine.name)
    remember(config)  # also in a process that got the configuration from another one
    device = build.device(config)
    settings = build.trainer_settings(config, device)
    source = source.to(device) if source is not None else build.data_source(config, device)
    params = ranges(config)
    modules = TrialModules(config, source, settings, params)
    sites = with_kinds(modules.sites(modules.start), config.sites.kinds, "sites.kinds")
    space = _space(config, params, modules)
    threads = unsafe_threads()
    processes = _processes(config, device, settings, source, threads)
    # Absolute, since processes with other working folders use it.
    checkpoints = Path(config.output_dir).absolute() / "checkpoints" / config.study.name
    context = ExperimentContext(
        config, device, settings, source, modules, sites, params, space, processes, 1, threads, checkpoints
    )
    if config.task != "sites":
        _require_sites(context)
    context = dataclasses.replace(context, space=warm_started(config, space, sites, modules.class_name))
    if not _needs_rate_check(context):
        return context
    make = lambda: modules.specimen(modules.start)  # noqa: E731
    data = context.source.for_trainer(config.seed)
    rate_check = check_rates(make, modules.batch, _trainer_of(context, data), config.trainer.max_epochs, data)
    if config.task in ("search", "plan"):
        searched = [site.name for site in sites if site.controllable]
        rate_check.require_active(searched, context.searching_arms[0], config.model.name)
    return dataclasses.replace(context, rate_check=rate_check)


def _trainer_of(context: ExperimentContext, batches: dict[str, Any]) -> Callable[[Any], bool] | None:
    """Return a function that trains a module for some epochs of a few steps; None if the module takes rates."""
    if not context.modules.has_own_rates:
        return None
    epochs = context.config.trainer.max_epochs
    return lambda module: trained_for(module, batches, context.settings, STEPS, epochs)


def _needs_rate_check(context: ExperimentContext) -> bool:
    if context.config.task == "sites":
        return True
    return (
        context.modules.has_own_rates
        and context.config.task not in ("retrain", "work")
        and bool(context.searching_arms)
    )


def _require_sites(context: ExperimentContext) -> None:
    config, found, searching = context.config, context.sites, context.searching_arms
    if searching and not any(site.controllable for site in found):
        those = "".join(f" with {site.name}, which is out of reach ({site.reason})" for site in found[:1])
        if context.modules.absent_sites:
            those += f" ({context.modules.absent_sites})"
        raise InputError(
            f"arms must not name {', '.join(searching)} for a model without dropout sites"
            f"{' to search' if found else ''}, got model={config.model.name}{those}: leave "
            f"{'them' if len(searching) > 1 else 'it'} out of arms, or add dropout to the model"
            ", for example by sites.insert"
        )
    check_sites(context.params, context.modules.start, found, context.modules.sites)


def _space(config: Config, params: Mapping[str, Range], modules: TrialModules) -> SpaceSettings:
    space: Any = config.space
    return SpaceSettings(
        rates=space.name,
        low=space.low,
        high=space.high,
        zero_share=space.zero_share,
        lr=modules.learning_rates.searched,
        weight_decay=(space.weight_decay.low, space.weight_decay.high),
        hyperparameters=params,
        start=modules.start,
        own=modules.own_settings,
        off_is_given=modules.has_own_rates,
        fixed=modules.fixed,
    )


def _processes(
    config: Config, device: torch.device, settings: TrainerSettings, source: Source, threads: Sequence[str]
) -> int:
    """Return the number of training processes: as configured, or one per CPU core or per GPU.

    It is one if the user's loaders have workers, if there are Trainer arguments (callbacks may write to the same
    place), or if threads prevent forking and the module or its data cannot be pickled.
    """
    wanted = config.engine.processes
    count = int(wanted) if wanted != "auto" else _as_many_as_help(config, device, settings, source)
    if count == 1 or not threads or config.cluster.name != "none" or device.type == "cuda":
        return count
    try:
        pickled(alone(config))
    except InputError as error:
        if wanted != "auto":
            raise
        tell(f"note: one process trains, because a thread is running ({threads[0]}): {error}")
        return 1
    tell(f"note: training processes are spawned, because a thread is running ({threads[0]})")
    return count


def _as_many_as_help(config: Config, device: torch.device, settings: TrainerSettings, source: Source) -> int:
    if source.uses_workers or settings.trainer():
        return 1
    if device.type == "cuda":
        return torch.cuda.device_count()
    return cores() if config.engine.name != "sequential" and can_fork() else 1


_HARMLESS = ("tqdm", "ipykernel", "IPython", "zmq", "debugpy", "_pydevd_bundle", "dropsearch", "execnet")
"""Packages whose threads hold no locks that a fork would copy."""
_NOTEBOOKS = ("IOPub", "Control", "CONTROL", "Subshell", "SHELL", "Dummy-")


def alone(config: Config) -> Config:
    """Return the configuration of a single worker of this run, with the same folders."""
    own = copy.copy(config)
    own.budget = None
    own.task, own.output_dir = "work", str(Path(config.output_dir).absolute())
    own.engine, own.cluster = copy.copy(config.engine), copy.copy(config.cluster)
    own.engine.processes, own.engine.devices, own.cluster.name = "1", "auto", "none"
    own.tracking = TrackingConfig(name="none")  # a logger from Python stays in this process
    own.study = copy.copy(config.study)
    own.study.storage = None  # workers do not use the storage, which cannot be pickled
    own.study.warm_start = None
    return own


def unsafe_threads(alive: Iterable[threading.Thread] = ()) -> tuple[str, ...]:
    """Return the names of threads that make forking unsafe: the user's, or those of a compiler.

    A fork copies only the calling thread, but also locks held by other threads, which are then never released.
    """
    found = [each for each in alive or threading.enumerate() if each is not threading.main_thread()]
    return tuple(each.name for each in found if not _is_harmless(each))


def _is_harmless(thread: threading.Thread) -> bool:
    return type(thread).__module__.startswith(_HARMLESS) or thread.name.startswith((*_NOTEBOOKS, "dropsearch"))
