"""The types of the configuration, and what each value must satisfy by itself. The values are in conf/."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dropsearch.core.constraints import Constraint, checked

HIGHEST_RATE = 0.95
"""Above it a layer passes so little that training fails for reasons that have nothing to do with rates."""

LARGEST_LR = 100.0
"""Above it every training diverges."""

POSITIVE = Constraint("int", at_least=1, at_most=1_000_000)
NOT_NEGATIVE = Constraint("int", at_least=0, at_most=1_000_000)
FLAG = Constraint("bool")
PRECISION = Constraint(one_of=("32-true", "64-true", "bf16-true", "16-true", "bf16-mixed", "16-mixed"))


DEFAULT_ARMS = ("none", "typical", "dropout_shared", "dropout")
"""The arms of a model that does not say how it gets BatchNorm, which cannot be put into it without guessing where."""
FREE = ("model", "data", "trainer", "arm_args", "space.params", "sites.kinds", "retrain.rates", "retrain.params")
"""Sections whose keys are the user's to name: arguments, sites, or other keys whose values are searched."""
REFERENCE = "${optimizer}"
"""How a model has the group `optimizer` among its arguments."""


def arguments(config: Any) -> dict[str, Any]:
    """Return what stands beside the fields of a group: the arguments of the class that it names."""
    known = {f.name for f in dataclasses.fields(config)} | {"made_by"}
    return {name: value for name, value in vars(config).items() if name not in known}


@dataclass
class ModelConfig:
    """The module: what else stands beside `_target_` are the arguments of its class or function."""

    name: str = "${last_part:${model._target_}}"
    _target_: str = "???"
    made_by = None
    """In Python the user hands over a function instead of a name; not a key of the configuration."""


@dataclass
class DataConfig:
    """The data module: what else stands beside `_target_` are the arguments of its class or function."""

    name: str = "${last_part:${data._target_}}"
    _target_: str = "???"
    made_by = None
    """In Python the user hands over the data module itself; not a key of the configuration."""


@dataclass
class RangeConfig:
    """A closed range that is searched on a logarithmic scale."""

    low: float = checked(1e-6, Constraint("float", above=0))
    high: float = checked(1.0, Constraint("float", at_most=LARGEST_LR))
    is_given = False
    """Whether the user gave it, be it with the default's values; not a key of the configuration."""


@dataclass
class SpaceConfig:
    """What is searched, the same in every arm."""

    name: str = checked("per_layer", Constraint(one_of=("per_layer", "shared", "depth")))
    low: float = checked(0.0, Constraint(at_least=0, at_most=HIGHEST_RATE))
    high: float = checked(0.9, Constraint(at_most=HIGHEST_RATE))
    zero_share: float = checked(0.2, Constraint(at_least=0, below=1))
    lr: RangeConfig = field(default_factory=lambda: RangeConfig(3e-4, 3e-2))
    weight_decay: RangeConfig = field(default_factory=lambda: RangeConfig(1e-6, 1e-1))
    params: dict[str, Any] = field(default_factory=dict)
    """What else is searched: ranges by key of `model` or `optimizer`; see `dropsearch.config.params`."""


@dataclass
class OptimizerConfig:
    """What each trial's optimiser has beside the learning rate and the weight decay that are searched."""

    name: str = checked("adamw", Constraint(one_of=("adamw", "adam", "sgd")))
    betas: list[float] = checked((0.9, 0.999), Constraint("float", at_least=0, below=1, most_items=2))
    momentum: float = checked(0.9, Constraint(at_least=0, below=1))
    nesterov: Any = checked(False, FLAG)
    schedule: str = checked("none", Constraint(one_of=("none", "cosine", "step", "warmup_cosine")))


@dataclass
class SamplerConfig:
    """Optuna's sampler."""

    name: str = checked("tpe", Constraint(one_of=("tpe", "random", "gp")))
    n_startup_trials: int = checked(10, POSITIVE)
    made_by = None
    """In Python the user may hand over a sampler instead of a name; not a key of the configuration."""


@dataclass
class PrunerConfig:
    """Optuna's pruner."""

    name: str = checked("median", Constraint(one_of=("none", "median", "hyperband")))
    n_startup_trials: int = checked(5, NOT_NEGATIVE)
    warmup_epochs: int = checked(5, NOT_NEGATIVE)
    made_by = None
    """In Python the user may hand over a pruner instead of a name; not a key of the configuration."""


@dataclass
class EngineConfig:
    """What trains the trials."""

    name: str = "auto"
    width: str = "auto"
    """How many trials train at once in a process: auto, or a number."""
    processes: str = "auto"
    """How many processes train: auto, or a number."""
    devices: Any = "auto"
    """The GPUs of this machine that train, by index: auto for all of them, or a list."""
    mask_seed: str = checked("per_trial", Constraint(one_of=("per_trial", "shared")))
    batch_seed: str = checked("per_trial", Constraint(one_of=("per_trial", "shared")))
    """per_trial: each trial draws its own masks; shared: all trials threshold one field of uniform numbers."""


@dataclass
class ClusterConfig:
    """Where the workers of a run are."""

    name: str = checked("none", Constraint(one_of=("none", "ray")))
    address: str = "auto"
    """local starts a Ray cluster in this machine; auto finds the one that this machine is part of; else its address."""
    workers: str = "auto"
    """How many actors train: auto for one a GPU or core of the cluster, or a number."""


@dataclass
class TrainerConfig:
    """What every trial's training shares."""

    max_epochs: int = checked(20, Constraint(at_least=1, at_most=1_000_000))
    accelerator: str = checked("auto", Constraint(one_of=("auto", "cpu", "gpu")))
    gradient_clip_val: float | None = checked(None, Constraint(above=0, at_most=1e9))
    """The largest norm of a gradient; null clips nothing."""
    precision: str = checked("32-true", PRECISION)
    matmul: str = checked("highest", Constraint(one_of=("highest", "high", "medium")))
    """What `torch.set_float32_matmul_precision` is given: highest, high or medium."""
    made_by = None
    """In Python the user hands over a function that makes the callbacks; not a key of the configuration."""


TRACKERS = ("mlflow", "wandb", "tensorboard", "none")


@dataclass
class TrackingConfig:
    """Where runs are tracked."""

    name: Any = "mlflow"
    """A tracker, or a list of them: mlflow, wandb, tensorboard, none."""
    uri: str | None = None
    """Where MLflow is."""
    log_model: Any = checked(True, FLAG)
    made_by = None
    """In Python the user may hand over a Lightning logger beside them; not a key of the configuration."""


@dataclass
class EvidenceConfig:
    """What is measured on the confirmed winners."""

    name: str = checked("on", Constraint(one_of=("on", "off")))
    monte_carlo: list[int] = checked((1, 2, 5, 10, 20, 50, 100), Constraint("int", at_least=1, most_items=100))
    """Numbers of passes with dropout on whose mean is looked at."""
    severities: int = checked(5, Constraint(at_least=1, at_most=100))
    """Strengths of each corruption."""
    single_sites: Any = checked(False, FLAG)
    """Retrain each winner that drops with the rate of one site at zero, and at the mean of the others."""


@dataclass
class StudyConfig:
    """The Optuna studies, one an arm."""

    name: str = "${model.name}-${data.name}"
    n_trials: int = checked(30, Constraint(at_least=1, at_most=1_000_000))
    repeats: int = checked(1, Constraint(at_least=1, at_most=10_000))
    """How often each arm's whole search is done; only the first one is chosen from."""
    storage: str | None = None
    timeout: float | None = checked(None, Constraint(above=0, at_most=1e9))
    """Seconds after which the search of an arm begins no further trial; null for no limit."""
    retry_failed: bool = False
    """Whether trials of the search that failed in earlier runs are trained again; those that diverged are not."""


@dataclass
class ConfirmConfig:
    """How the best configurations are confirmed."""

    top_k: int = checked(3, Constraint(at_least=1, at_most=10_000))
    seeds: int = checked(10, Constraint(at_least=1, at_most=10_000))
    screening_seeds: int = checked(4, Constraint(at_least=1, at_most=10_000))
    """On how many of the seeds every configuration is retrained; the best one of each arm is retrained on all."""


@dataclass
class RetrainConfig:
    """A configuration that an earlier run found: what `task=retrain` trains. See best/ARM.yaml of a run."""

    arm: str = ""
    rates: dict[str, float] = field(default_factory=dict)
    lr: float = checked(1e-3, Constraint("float", above=0, at_most=LARGEST_LR))
    weight_decay: float = checked(0.0, Constraint("float", at_least=0, at_most=LARGEST_LR))
    params: dict[str, Any] = field(default_factory=dict)
    """What is set on the optimizer of the module, by key of `optimizer`."""
    seed: int = checked(0, Constraint("int", at_least=0, below=2**63))
    """Of the retraining alone; the data is split by `seed`."""


@dataclass
class BatchNormConfig:
    """How the arms without BatchNorm get rid of it."""

    replace: str | None = checked(None, Constraint(one_of=("identity",)))
    """identity: what stands where the module has a BatchNorm; null leaves it there."""


@dataclass
class SitesConfig:
    """Where a model drops, and what its sites are."""

    kinds: dict[str, str] = field(default_factory=dict)
    """Kind by site name or pattern, where the guessed one is wrong; it decides the typical rate."""
    per_call: list[str] = checked((), Constraint("str", most_items=10_000))
    """Sites, by name or pattern, whose calls in one pass each have a rate: ``drop``, ``drop@2`` and so on."""
    insert: Any = None
    """Where the module gets dropout that it has not: after_activation, a name, a pattern or a type, or a list."""
    where = None
    """In Python types may be handed over themselves, beside names; not a key of the configuration."""


@dataclass
class Config:
    """The whole configuration."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    pruner: PrunerConfig = field(default_factory=PrunerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    confirm: ConfirmConfig = field(default_factory=ConfirmConfig)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    sites: SitesConfig = field(default_factory=SitesConfig)
    task: str = checked("search", Constraint(one_of=("search", "work", "plan", "sites", "retrain", "evidence")))
    """search; work (train trials of a study that another process reports); plan (say how trials would be trained, and
    train none); sites (list them); retrain; or evidence (of an earlier run)."""
    monitor: str = "val_loss"
    mode: str = checked("min", Constraint(one_of=("min", "max")))
    """min or max: whether less or more of the monitored metric is better."""
    arms: list[str] = field(default_factory=lambda: list(DEFAULT_ARMS))
    arm_args: dict[str, Any] = field(default_factory=dict)
    """By arm, arguments of the model."""
    batchnorm: BatchNormConfig = field(default_factory=BatchNormConfig)
    seed: int = checked(0, Constraint(at_least=0, below=2**63))
    budget: str | None = None
    """What the run may take: ``20m``, ``2h``, ``500 trials``; it decides trials, configurations and seeds."""
    output_dir: str = "outputs/${study.name}"


def takes_optimizer(config: Config) -> bool:
    """Return whether the model has the group `optimizer` among its arguments, as ``optimizer: ${optimizer}``."""
    return any(isinstance(value, OptimizerConfig) for value in arguments(config.model).values())


def plain(config: Config) -> dict[str, Any]:
    """Return a configuration as nested dictionaries, the arguments of its classes among its keys.

    Objects that were handed over in Python stand there by the name of their type.
    """
    values = dataclasses.asdict(config)
    for group in ("model", "data", "trainer"):
        given = arguments(getattr(config, group))
        values[group] |= {k: REFERENCE if isinstance(v, OptimizerConfig) else v for k, v in given.items()}
    return _in_words(values)


def _in_words(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _in_words(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_in_words, value))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    # Never an object's address, by which no study could be continued in another process.
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
