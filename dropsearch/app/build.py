"""From a configuration to the parts of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dropsearch.config.schema import Config
from dropsearch.data.tensors import TensorDataModule, data_module
from dropsearch.dropout.sites import dropout_sites
from dropsearch.errors import InputError
from dropsearch.models import Classifier, build_net
from dropsearch.records import ARMS, Arm, Site, TrialSpec
from dropsearch.search.space import SpaceSettings
from dropsearch.training.alone import AloneEngine
from dropsearch.training.array_engine import ArrayEngine
from dropsearch.training.feed import CheckpointPath, Engine, TrainerSettings
from dropsearch.training.logs import captured_logs
from dropsearch.training.plan import Plan, make_plan
from dropsearch.training.processes import ProcessEngine, can_fork, cores
from dropsearch.training.proof import proof_specs

NET = "net."
"""Where `Classifier` keeps its network: sites are named from the Lightning module, rates given to the net."""


def device(config: Config) -> torch.device:
    """Return the device that `trainer.accelerator` means; that there is one has been checked."""
    wanted = config.trainer.accelerator
    return torch.device("cuda" if wanted == "gpu" or (wanted == "auto" and torch.cuda.is_available()) else "cpu")


def data(config: Config, where: torch.device) -> TensorDataModule:
    """Load the data set, split it, and move it to the device once."""
    options = dataclasses.asdict(config.data)
    module = data_module(options.pop("name"), seed=config.seed, **options)
    module.setup()
    return module.to(where)


def module_factory(config: Config, source: TensorDataModule) -> Callable[[TrialSpec], Classifier]:
    """Return what builds a trial's module, its initial weights a function of the trial's seed alone."""

    def make(spec: TrialSpec) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            return _classifier(config, source, spec)

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


def sites(config: Config, source: TensorDataModule) -> tuple[Site, ...]:
    """Return the sites of the model, in the order of a forward pass.

    Raises:
        InputError: The model cannot be built, or has no site though an arm searches rates.
    """
    arm = "dropout"
    try:
        module = module_factory(config, source)(TrialSpec(arm, 0, config.seed, {}, lr=1e-3, weight_decay=0.0))
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:  # the last two where memory ends
        name, reason = config.model.name, str(error).splitlines()[0]
        raise InputError(f"model={name} cannot be built for data={source.name}: {reason}") from error
    module.to(next(iter(source.train_loader(0)))[0].device).train()
    for part in module.modules():  # attention has a site only where its rate is above 0
        if isinstance(getattr(part, "dropout", None), float):
            part.dropout = 0.1  # type: ignore[assignment]
    batch = next(iter(source.train_loader(config.seed)))
    with torch.no_grad(), captured_logs(module):
        found = dropout_sites(module, lambda: module.training_step(batch, 0))
    searching = [name for name in config.arms if ARMS[name].dropout != "off"]
    if searching and not any(site.controllable for site in found):
        raise InputError(
            f"arms must not name {searching[0]} for a model without dropout sites, got model={config.model.name}: "
            "leave it out of arms, or give the model a dropout"
        )
    return found


def settings(config: Config) -> TrainerSettings:
    """Return what every trial's training shares."""
    trainer = config.trainer
    accelerator = "gpu" if device(config).type == "cuda" else "cpu"
    return TrainerSettings(
        trainer.max_epochs,
        accelerator,
        trainer.precision,
        config.optimizer.gradient_clip,
        common_masks=config.engine.masks == "common",
    )


def plan(config: Config, source: TensorDataModule, found: tuple[Site, ...]) -> Plan:
    """Choose how trials are trained.

    Raises:
        InputError: `engine=array` is asked for, and what it gives differs from trials alone.
    """
    pairs = [proof_specs(name, found, dropping=ARMS[name].dropout != "off") for name in config.arms]
    return make_plan(
        module_factory(config, source),
        source,
        settings(config),
        pairs,
        engine=config.engine.name,
        width=None if config.engine.width == "auto" else int(config.engine.width),
        processes=process_count(config),
    )


def engine(config: Config, source: TensorDataModule, chosen: Plan, checkpoint_path: CheckpointPath) -> Engine:
    """Return what trains the trials."""
    factory, shared = module_factory(config, source), settings(config)
    one: Engine
    if chosen.engine == "alone":
        one = AloneEngine(factory, source, shared, checkpoint_path, chosen.reason)
    else:
        shared = dataclasses.replace(shared, convolutions=chosen.convolutions)
        one = ArrayEngine(factory, source, shared, chosen.width, checkpoint_path)
    count = process_count(config)
    return ProcessEngine(one, count) if count > 1 else one


def use_precision(config: Config) -> None:
    """Let torch compute float32 products as precisely as `trainer.matmul` says, in this process and its forks."""
    torch.set_float32_matmul_precision(config.trainer.matmul)
    torch.backends.cudnn.allow_tf32 = config.trainer.matmul != "highest"  # convolutions, which the first leaves alone


def use_threads(config: Config) -> None:
    """Let torch use one thread where several processes train: what is measured here is then what they will do."""
    if process_count(config) > 1:
        torch.set_num_threads(1)


def process_count(config: Config) -> int:
    """Return how many processes train: those asked for, else one a core on a CPU and one on a GPU."""
    wanted = config.engine.processes
    if wanted != "auto":
        return int(wanted)
    on_cpu = device(config).type == "cpu"
    return cores() if on_cpu and config.engine.name != "alone" and can_fork() else 1


def space_settings(config: Config) -> SpaceSettings:
    """Return the ranges of the search."""
    space: Any = config.space
    return SpaceSettings(
        rates=space.name,
        low=space.low,
        high=space.high,
        zero_share=space.zero_share,
        lr=(space.lr.low, space.lr.high),
        weight_decay=(space.weight_decay.low, space.weight_decay.high),
    )


def fingerprint(config: Config, source: TensorDataModule, arm: Arm, found: tuple[Site, ...]) -> Mapping[str, Any]:
    """Return what must be the same for a study to be continued, by configuration key."""
    parts = {name: dataclasses.asdict(getattr(config, name)) for name in ("model", "data", "space", "optimizer")}
    parts["data"].pop("root")
    flat = {f"{name}.{key}": value for name, values in parts.items() for key, value in values.items()}
    return {
        **flat,
        "arm": arm.name,
        "engine.masks": config.engine.masks,
        "data": source.digest,
        "monitor": "val_loss",
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
