"""From a configuration to the parts of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dropsearch.app import own
from dropsearch.app.extra import check_sites, in_one_array, never_alike, programs, start
from dropsearch.config.extra import applied, ranges
from dropsearch.config.schema import Config, plain
from dropsearch.data.own import OwnData
from dropsearch.data.tensors import TensorDataModule, data_module
from dropsearch.dropout.kinds import with_kinds
from dropsearch.dropout.sites import dropout_sites
from dropsearch.errors import InputError
from dropsearch.models import Classifier, build_net
from dropsearch.records import ARMS, Arm, Monitor, Site, TrialSpec
from dropsearch.search.space import SpaceSettings
from dropsearch.training.alone import AloneEngine, quiet_lightning
from dropsearch.training.array_engine import ArrayEngine
from dropsearch.training.feed import CheckpointPath, Engine, TrainerSettings
from dropsearch.training.logs import captured_logs
from dropsearch.training.obstacles import obstacle
from dropsearch.training.plan import Plan, make_plan
from dropsearch.training.processes import ProcessEngine, can_fork, cores
from dropsearch.training.proof import proof_specs
from dropsearch.training.trainers import make_trainer

Source = TensorDataModule | OwnData
"""Where batches come from: the catalogue, or a data module of the user's own."""

NET = "net."
"""Where `Classifier` keeps its network: sites are named from the Lightning module, rates given to the net."""


def device(config: Config) -> torch.device:
    """Return the device that `trainer.accelerator` means; that there is one has been checked."""
    wanted = config.trainer.accelerator
    return torch.device("cuda" if wanted == "gpu" or (wanted == "auto" and torch.cuda.is_available()) else "cpu")


def data(config: Config, where: torch.device) -> TensorDataModule | OwnData:
    """Load the data set, split it, and move it to the device once."""
    if own.is_own_data(config):
        return own.data(config).to(where)
    options = dataclasses.asdict(config.data)
    module = data_module(options.pop("name"), seed=config.seed, **options)
    module.setup()
    return module.to(where)


def module_factory(config: Config, source: Source) -> Callable[[TrialSpec], Any]:
    """Return what builds a trial's module, its initial weights a function of the trial's seed alone."""
    build = own.modules(config, source, settings(config)).make if own.is_own(config) else _zoo_factory(config, source)

    def make(spec: TrialSpec) -> Any:
        try:
            return build(spec)
        except InputError as error:
            if not spec.extra:
                raise
            # What is searched was looked at before; a value in between that is illegal fails its trial and no other.
            raise ValueError(str(error)) from error

    return make


def _zoo_factory(config: Config, source: Source) -> Callable[[TrialSpec], Classifier]:
    assert isinstance(source, TensorDataModule), "checked with the configuration"

    def make(spec: TrialSpec) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            return _classifier(applied(config, spec.extra), source, spec)

    return make


def _classifier(config: Config, source: TensorDataModule, spec: TrialSpec) -> Classifier:
    options = dataclasses.asdict(config.model)
    if ARMS[spec.arm].batchnorm:
        options["norm"] = "batch"
    net = build_net(
        {
            **options,
            "input_shape": list(source.input_shape),
            "layout": source.layout,
            "classes": source.classes,
            "dropout": {site.removeprefix(NET): rate for site, rate in spec.rates.items()},
        }
    )
    if device(config).type == "cpu":
        # A CPU's pooling and convolutions then go through memory in order; these nets never `view` an activation.
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = config.optimizer
    choices: Any = {"optimizer": optimizer.name, "schedule": optimizer.schedule}  # checked with the configuration
    return Classifier(
        net,
        **choices,
        lr=spec.lr,
        weight_decay=spec.weight_decay,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        betas=(optimizer.betas[0], optimizer.betas[1]),
    )


def sites(config: Config, source: Source) -> tuple[Site, ...]:
    """Return the sites of the model, in the order of a forward pass.

    Raises:
        InputError: As `inventory`; or the model has no site though an arm searches rates, or other sites with other
            values of what else is searched.
    """
    found = inventory(config, source)
    searching = [name for name in config.arms if ARMS[name].dropout != "off"]
    if searching and not any(site.controllable for site in found):
        raise InputError(
            f"arms must not name {searching[0]} for a model without dropout sites, got model={config.model.name}: "
            f"leave it out of arms, or give the model a dropout{', as by sites.insert' if own.is_own(config) else ''}"
        )
    begun = first_values(config, source)
    check_sites(ranges(config), begun, found, lambda values: _inventory(config, source, values))
    return found


def inventory(config: Config, source: Source) -> tuple[Site, ...]:
    """Return the sites of the model, if it has any, in the order of a forward pass and with the kinds of `sites.kinds`.

    Raises:
        InputError: The model cannot be built, or `sites.kinds` names a site that it has not.
    """
    found = _inventory(config, source, first_values(config, source))
    return with_kinds(found, config.sites.kinds, "sites.kinds")


def first_values(config: Config, source: Source) -> dict[str, Any]:
    """Return what the first trials have of what else is searched, by configuration key."""
    if own.is_own(config):
        return own.modules(config, source, settings(config)).start
    groups = plain(config)
    configured = {f"{group}.{name}": value for group in ("model", "optimizer") for name, value in groups[group].items()}
    return start(ranges(config), configured)


def _inventory(config: Config, source: Source, values: Mapping[str, Any]) -> tuple[Site, ...]:
    """Return the sites of a model with these values of what else is searched."""
    if own.is_own(config):
        return own.modules(config, source, settings(config)).sites(values)
    module, batch = _zoo_specimen(config, source, values), next(iter(source.train_loader(config.seed)))
    with torch.no_grad(), captured_logs(module):
        return dropout_sites(module, lambda: module.training_step(batch, 0))


def specimen(config: Config, source: Source) -> tuple[Any, Any]:
    """Return a module that is looked at and thrown away, and a batch as its `training_step` takes it.

    Raises:
        InputError: The model cannot be built.
    """
    begun = first_values(config, source)
    if own.is_own(config):
        modules = own.modules(config, source, settings(config))
        return modules.specimen(begun), modules.probe.batch
    return _zoo_specimen(config, source, begun), next(iter(source.train_loader(config.seed)))


def _zoo_specimen(config: Config, source: Source, values: Mapping[str, Any]) -> Any:
    arm = "dropout"
    try:
        spec = TrialSpec(arm, 0, config.seed, {}, lr=1e-3, weight_decay=0.0, extra=values)
        module = module_factory(config, source)(spec)
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:  # the last two where memory ends
        name, reason = config.model.name, str(error).splitlines()[0]
        raise InputError(f"model={name} cannot be built for data={source.name}: {reason}") from error
    module.to(next(iter(source.train_loader(0)))[0].device).train()
    for part in module.modules():  # attention has a site only where its rate is above 0
        if isinstance(getattr(part, "dropout", None), float):
            part.dropout = 0.1  # type: ignore[assignment]
    return module


def settings(config: Config) -> TrainerSettings:
    """Return what every trial's training shares."""
    trainer = config.trainer
    accelerator = "gpu" if device(config).type == "cuda" else "cpu"
    return TrainerSettings(
        trainer.max_epochs,
        accelerator,
        trainer.precision,
        config.optimizer.gradient_clip,
        monitor=monitor(config),
        foreign=own.is_own(config),
        trainer=own.trainer_arguments(config),
        common_masks=config.engine.masks == "common",
    )


def monitor(config: Config) -> Monitor:
    """Return what trials are chosen by."""
    mode: Any = config.mode  # checked with the configuration
    return Monitor(config.monitor, mode)


def plan(config: Config, source: Source, found: tuple[Site, ...]) -> Plan:
    """Choose how trials are trained.

    Raises:
        InputError: `engine=array` is asked for, and what it gives differs from trials alone.
    """
    searched = ranges(config)
    together = [in_one_array(searched, program) for program in programs(searched)]
    pairs = [_pair(config, name, found, values) for name in config.arms for values in together]
    if own.is_own(config) and config.engine.name != "alone":
        reason = _obstacle(config, source, pairs)
        if reason and config.engine.name == "array":
            raise InputError(
                f"engine=array needs a module and data that can be rows of an array, but {reason}: use engine=auto or "
                "engine=alone"
            )
        if reason:
            return Plan("alone", 1, reason)
    return make_plan(
        module_factory(config, source),
        _rows(source),
        settings(config),
        pairs,
        engine=config.engine.name,
        width=None if config.engine.width == "auto" else int(config.engine.width),
        processes=process_count(config, source),
        apart=never_alike(searched),
    )


def _pair(
    config: Config, arm: str, found: tuple[Site, ...], values: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> tuple[TrialSpec, TrialSpec]:
    dropping = ARMS[arm].dropout != "off"
    one, other = proof_specs(arm, found, dropping=dropping)
    if not dropping and own.is_own(config):
        off = {site.name: 0.0 for site in found if site.controllable}  # the module has rates of its own
        one, other = dataclasses.replace(one, rates=off), dataclasses.replace(other, rates=off)
    return dataclasses.replace(one, extra=values[0]), dataclasses.replace(other, extra=values[1])


def _obstacle(config: Config, source: Source, pairs: Sequence[tuple[TrialSpec, TrialSpec]]) -> str:
    """Return why trials of a module of the user's own have to be trained alone, or an empty string."""
    if isinstance(source, OwnData) and source.rows is None:
        return source.obstacle
    shared = settings(config)
    given = sorted(shared.trainer())
    if given:
        return f"trainer.{given[0]} is honoured where trials train alone"
    factory = module_factory(config, source)
    with quiet_lightning():
        trainer = make_trainer(factory(pairs[0][0]), shared, [], max_epochs=config.trainer.max_epochs)
    return next(filter(None, (obstacle(factory, _rows(source), one, shared.monitor, trainer) for one, _ in pairs)), "")


def _rows(source: Source) -> Any:
    """Return the source as an array takes it."""
    return source.in_rows() if isinstance(source, OwnData) and source.rows is not None else source


def engine(config: Config, source: Source, chosen: Plan, checkpoint_path: CheckpointPath) -> Engine:
    """Return what trains the trials."""
    factory, shared = module_factory(config, source), settings(config)
    one: Engine
    if chosen.engine == "alone":
        one = AloneEngine(factory, source, shared, checkpoint_path, chosen.reason)
    else:
        shared = dataclasses.replace(shared, convolutions=chosen.convolutions)
        one = ArrayEngine(factory, _rows(source), shared, chosen.width, checkpoint_path)
    count = process_count(config, source)
    return ProcessEngine(one, count) if count > 1 else one


def carried(config: Config, source: Source, spec: TrialSpec) -> dict[str, Any]:
    """Return the arguments that a class of the user's own gets for a trial, beside those of the configuration."""
    return own.modules(config, source, settings(config)).carried(spec) if own.is_own(config) else {}


def use_precision(config: Config) -> None:
    """Let torch compute float32 products as precisely as `trainer.matmul` says, in this process and its forks."""
    torch.set_float32_matmul_precision(config.trainer.matmul)
    torch.backends.cudnn.allow_tf32 = config.trainer.matmul != "highest"  # convolutions, which the first leaves alone


def use_threads(config: Config, source: Source) -> None:
    """Let torch use one thread where several processes train: what is measured here is then what they will do."""
    if process_count(config, source) > 1:
        torch.set_num_threads(1)


def process_count(config: Config, source: Source) -> int:
    """Return how many processes train: those asked for, else one a core on a CPU and one on a GPU.

    One where the user's loaders have workers, or the Trainer arguments, whose callbacks may write to one place.
    """
    wanted = config.engine.processes
    if wanted != "auto":
        return int(wanted)
    if own.is_own(config) and (
        own.trainer_arguments(config)() or (isinstance(source, OwnData) and source.uses_workers)
    ):
        return 1
    on_cpu = device(config).type == "cpu"
    return cores() if on_cpu and config.engine.name != "alone" and can_fork() else 1


def space_settings(config: Config, source: Source) -> SpaceSettings:
    """Return the ranges of the search."""
    space: Any = config.space
    more: dict[str, Any] = {}
    if own.is_own(config):
        routes = own.modules(config, source, settings(config)).routes
        more = {"off_is_given": True, "fixed": tuple(route.setting for route in routes if not route.searched)}
    return SpaceSettings(
        rates=space.name,
        low=space.low,
        high=space.high,
        zero_share=space.zero_share,
        lr=(space.lr.low, space.lr.high),
        weight_decay=(space.weight_decay.low, space.weight_decay.high),
        extra=ranges(config),
        start=first_values(config, source),
        **more,
    )


def fingerprint(config: Config, source: Source, arm: Arm, found: tuple[Site, ...]) -> Mapping[str, Any]:
    """Return what must be the same for a study to be continued, by configuration key."""
    given = plain(config)
    parts: dict[str, Any] = {name: given[name] for name in ("model", "data", "space", "optimizer")}
    parts["data"].pop("root", None)
    parts["space"].pop("extra")
    searched = {key: str(each) for key, each in ranges(config).items()}
    if own.is_own(config):
        parts["model"]["class"] = own.module_name(config)
        parts |= {"arm_args": given["arm_args"], "batchnorm": given["batchnorm"], "monitor": {"mode": config.mode}}
        parts["trainer"] = {name: given["trainer"][name] for name in own.arguments(config.trainer)}
    # Only where something is said, so that studies of before can be continued.
    parts["sites"] = {name: value for name, value in given["sites"].items() if value}
    flat = {f"{name}.{key}": value for name, values in parts.items() for key, value in values.items()}
    return {
        **flat,
        # Left out where it is empty: a study that was begun before there was such a key goes on.
        **({"space.extra": searched} if searched else {}),
        "arm": arm.name,
        "engine.masks": config.engine.masks,
        "data": source.digest,
        "monitor": config.monitor,
        "seed": config.seed,
        "sites": [site.name for site in found],
        "trainer.matmul": config.trainer.matmul,
        "trainer.max_epochs": config.trainer.max_epochs,
        "trainer.precision": config.trainer.precision,
    }


def output_folder(config: Config) -> Path:
    """Make the output directory.

    Raises:
        InputError: It cannot be written.
    """
    folder = Path(config.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f'output_dir must be a folder that can be written, got "{folder}" ({error.strerror}): name another'
        ) from error
    return folder
