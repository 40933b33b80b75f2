"""From a configuration to the parts of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dropsearch.config.params import applied, ranges
from dropsearch.config.schema import Config, plain
from dropsearch.core.errors import InputError
from dropsearch.core.records import ARMS, Monitor, Site, TrialSpec
from dropsearch.datasets.data_module import TensorDataModule, data_module
from dropsearch.datasets.user_data import UserData
from dropsearch.dropout.site_kinds import with_kinds
from dropsearch.dropout.sites import dropout_sites
from dropsearch.experiment import user_module
from dropsearch.experiment.params import check_sites, start
from dropsearch.models import Classifier, build_net
from dropsearch.training.logged_steps import captured_logs
from dropsearch.training.protocols import TrainerSettings

Source = TensorDataModule | UserData
"""Where batches come from: the catalogue, or a data module of the user's own."""

NET = "net."
"""Where `Classifier` keeps its network: sites are named from the Lightning module, rates given to the net."""


def device(config: Config) -> torch.device:
    """Return the device that `trainer.accelerator` means; that there is one has been checked."""
    wanted = config.trainer.accelerator
    return torch.device("cuda" if wanted == "gpu" or (wanted == "auto" and torch.cuda.is_available()) else "cpu")


def data(config: Config, where: torch.device) -> TensorDataModule | UserData:
    """Load the data set, split it, and move it to the device once."""
    if user_module.is_user_data(config):
        return user_module.data(config).to(where)
    options = dataclasses.asdict(config.data)
    module = data_module(options.pop("name"), seed=config.seed, **options)
    module.setup()
    return module.to(where)


def module_factory(config: Config, source: Source) -> Callable[[TrialSpec], Any]:
    """Return what builds a trial's module, its initial weights a function of the trial's seed alone."""
    build = (
        user_module.modules(config, source, settings(config)).make
        if user_module.is_user_module(config)
        else _zoo_factory(config, source)
    )

    def make(spec: TrialSpec) -> Any:
        try:
            return build(spec)
        except InputError as error:
            if not spec.hyperparameters:
                raise
            # What is searched was looked at before; a value in between that is illegal fails its trial and no other.
            raise ValueError(str(error)) from error

    return make


def _zoo_factory(config: Config, source: Source) -> Callable[[TrialSpec], Classifier]:
    assert isinstance(source, TensorDataModule), "checked with the configuration"

    def make(spec: TrialSpec) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(spec.seed)  # `torch.manual_seed` would seed the GPUs too
            return _classifier(applied(config, spec.hyperparameters), source, spec)

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
        those = "".join(f" with {site.name}, which is out of reach ({site.reason})" for site in found[:1])
        raise InputError(
            f"arms must not name {', '.join(searching)} for a model without dropout sites"
            f"{' to search' if found else ''}, got model={config.model.name}{those}: leave "
            f"{'them' if len(searching) > 1 else 'it'} out of arms, or give the model a dropout"
            f"{', as by sites.insert' if user_module.is_user_module(config) else ''}"
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
    if user_module.is_user_module(config):
        return user_module.modules(config, source, settings(config)).start
    groups = plain(config)
    configured = {f"{group}.{name}": value for group in ("model", "optimizer") for name, value in groups[group].items()}
    return start(ranges(config), configured)


def _inventory(config: Config, source: Source, values: Mapping[str, Any]) -> tuple[Site, ...]:
    """Return the sites of a model with these values of what else is searched."""
    if user_module.is_user_module(config):
        return user_module.modules(config, source, settings(config)).sites(values)
    module, batch = _zoo_specimen(config, source, values), next(iter(source.train_loader(config.seed)))
    with torch.no_grad(), captured_logs(module):
        return dropout_sites(module, lambda: module.training_step(batch, 0))


def specimen(config: Config, source: Source) -> tuple[Any, Any]:
    """Return a module that is looked at and thrown away, and a batch as its `training_step` takes it.

    Raises:
        InputError: The model cannot be built.
    """
    begun = first_values(config, source)
    if user_module.is_user_module(config):
        modules = user_module.modules(config, source, settings(config))
        return modules.specimen(begun), modules.probe.batch
    return _zoo_specimen(config, source, begun), next(iter(source.train_loader(config.seed)))


def _zoo_specimen(config: Config, source: Source, values: Mapping[str, Any]) -> Any:
    arm = "dropout"
    try:
        spec = TrialSpec(arm, 0, config.seed, {}, lr=1e-3, weight_decay=0.0, hyperparameters=values)
        module = module_factory(config, source)(spec)
    except InputError:
        raise
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
        trainer.gradient_clip_val,
        monitor=monitor(config),
        is_user_module=user_module.is_user_module(config),
        trainer=user_module.trainer_arguments(config),
        shared_masks=config.engine.mask_seed == "shared",
    )


def monitor(config: Config) -> Monitor:
    """Return what trials are chosen by."""
    mode: Any = config.mode  # checked with the configuration
    return Monitor(config.monitor, mode)


def carried(config: Config, source: Source, spec: TrialSpec) -> dict[str, Any]:
    """Return the arguments that a class of the user's own gets for a trial, beside those of the configuration."""
    return (
        user_module.modules(config, source, settings(config)).carried(spec)
        if user_module.is_user_module(config)
        else {}
    )


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
