"""The configuration schema: types and constraints of single values. The defaults are in conf/."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from dropsearch.core.constraints import Constraint, checked

HIGHEST_RATE = 0.95
"""Highest legal rate. Above it so few activations remain that training fails regardless of tuning."""
LARGEST_LR = 100.0
"""Highest legal learning rate; above it every training diverges."""
POSITIVE = Constraint("int", at_least=1, at_most=1_000_000)
NOT_NEGATIVE = Constraint("int", at_least=0, at_most=1_000_000)
FLAG = Constraint("bool")
PRECISION = Constraint(one_of=("32-true", "64-true", "bf16-true", "16-true", "bf16-mixed", "16-mixed"))

DEFAULT_ARMS = ("none", "typical", "dropout_shared", "dropout")
"""Default arms of a model without settings for BatchNorm, which is not inserted by guessing."""
FREE = ("model", "data", "trainer", "arm_args", "space.params", "sites.kinds", "retrain.rates", "retrain.params")
"""Sections with arbitrary keys: arguments, sites, or searched keys."""
REFERENCE = "${optimizer}"
"""The value of an argument that passes the group `optimizer` to a model."""


def arguments(config: Any) -> dict[str, Any]:
    """Return the keys of a group that are not fields: arguments of the class in `_target_`."""
    known = {f.name for f in dataclasses.fields(config)} | {"made_by"}
    return {name: value for name, value in vars(config).items() if name not in known}


class FromPython:
    """A group for which Python can pass an object, or a function that makes it."""

    made_by = None
    """What Python passes; not a configuration key."""


@dataclass
class ModelConfig(FromPython):
    """The module; keys other than the fields are arguments of the class or function in `_target_`."""

    name: str = "${last_part:${model._target_}}"
    _target_: str = "???"


@dataclass
class DataConfig(FromPython):
    """The data module; keys other than the fields are arguments of the class or function in `_target_`."""

    name: str = "${last_part:${data._target_}}"
    _target_: str = "???"


@dataclass
class RangeConfig:
    """A closed range searched on a logarithmic scale."""

    low: float = checked(1e-6, Constraint("float", above=0))
    high: float = checked(1.0, Constraint("float", at_most=LARGEST_LR))
    is_given = False
    """Whether the user set the range, even to the default's values; not a configuration key."""


@dataclass
class SpaceConfig:
    """The search space, which is the same in every arm."""

    name: str = checked("per_layer", Constraint(one_of=("per_layer", "shared", "depth", "step")))
    low: float = checked(0.0, Constraint(at_least=0, at_most=HIGHEST_RATE))
    high: float = checked(0.9, Constraint(at_most=HIGHEST_RATE))
    zero_share: float = checked(0.2, Constraint(at_least=0, below=1))
    lr: RangeConfig = field(default_factory=lambda: RangeConfig(3e-4, 3e-2))
    weight_decay: RangeConfig = field(default_factory=lambda: RangeConfig(1e-6, 1e-1))
    params: dict[str, Any] = field(default_factory=dict)
    """Ranges of other searched keys of `model` or `optimizer`; see `dropsearch.config.params`."""


@dataclass
class OptimizerConfig:
    """The optimizer of each trial, except learning rate and weight decay, which are searched."""

    name: str = checked("adamw", Constraint(one_of=("adamw", "adam", "sgd")))
    betas: list[float] = checked((0.9, 0.999), Constraint("float", at_least=0, below=1, most_items=2))
    momentum: float = checked(0.9, Constraint(at_least=0, below=1))
    nesterov: Any = checked(False, FLAG)
    schedule: str = checked("none", Constraint(one_of=("none", "cosine", "step", "warmup_cosine")))


@dataclass
class SamplerConfig(FromPython):
    """Optuna's sampler."""

    name: str = checked("tpe", Constraint(one_of=("tpe", "random", "gp")))
    n_startup_trials: int = checked(10, POSITIVE)


@dataclass
class PrunerConfig(FromPython):
    """Optuna's pruner."""

    name: str = checked("median", Constraint(one_of=("none", "median", "hyperband")))
    n_startup_trials: int = checked(5, NOT_NEGATIVE)
    warmup_epochs: int = checked(5, NOT_NEGATIVE)


@dataclass
class EngineConfig:
    """The engine that trains the trials."""

    name: str = "auto"
    width: str = "auto"
    """Number of trials that a process trains at once, or auto."""
    processes: str = "auto"
    """Number of training processes, or auto."""
    threads: str = "auto"
    """Number of torch threads of each training process, or auto."""
    devices: Any = "auto"
    """Indices of this machine's GPUs to train on, or auto for all."""
    mask_seed: str = checked("per_trial", Constraint(one_of=("per_trial", "shared")))
    batch_seed: str = checked("per_trial", Constraint(one_of=("per_trial", "shared")))
    """per_trial: each trial draws its own masks; shared: all trials threshold the same uniform numbers."""


@dataclass
class ClusterConfig:
    """The location of a run's workers."""

    name: str = checked("none", Constraint(one_of=("none", "ray")))
    address: str = "auto"
    """local: start a Ray cluster on this machine; auto: join this machine's cluster; otherwise an address."""
    workers: str = "auto"
    """Number of training actors, or auto: one per GPU, or one per core in a cluster without GPUs."""


@dataclass
class TrainerConfig(FromPython):
    """Trainer settings, which all trials share."""

    max_epochs: int = checked(20, Constraint(at_least=1, at_most=1_000_000))
    accelerator: str = checked("auto", Constraint(one_of=("auto", "cpu", "gpu")))
    gradient_clip_val: float | None = checked(None, Constraint(above=0, at_most=1e9))
    """Maximum gradient norm; null disables clipping."""
    precision: str = checked("32-true", PRECISION)
    matmul: str = checked("highest", Constraint(one_of=("highest", "high", "medium")))
    """Argument of `torch.set_float32_matmul_precision`."""


TRACKERS = ("mlflow", "wandb", "tensorboard", "none")


@dataclass
class TrackingConfig(FromPython):
    """The trackers of a run."""

    name: Any = "mlflow"
    """A tracker, or a list of them: mlflow, wandb, tensorboard, none."""
    uri: str | None = None
    """MLflow's tracking URI."""
    log_model: Any = checked(True, FLAG)


@dataclass
class EvidenceConfig:
    """Measurements on the confirmed winners."""

    name: str = checked("on", Constraint(one_of=("on", "off")))
    monte_carlo: list[int] = checked((1, 2, 5, 10, 20, 50, 100), Constraint("int", at_least=1, most_items=100))
    """Numbers of averaged passes with dropout on."""
    severities: int = checked(5, Constraint(at_least=1, at_most=100))
    """Number of strengths of each corruption."""
    single_sites: Any = checked(False, FLAG)
    """Whether each winner with dropout is retrained with one rate at zero, and at the mean of the others."""


@dataclass
class StudyConfig:
    """The Optuna studies, one per arm."""

    name: str = "${model.name}-${data.name}"
    n_trials: int = checked(30, Constraint(at_least=1, at_most=1_000_000))
    repeats: int = checked(1, Constraint(at_least=1, at_most=10_000))
    """Number of repetitions of each arm's search; selection uses the first one only."""
    storage: str | None = None
    warm_start: str | None = None
    """Earlier study whose best configurations are among the first trials: its output directory, storage or name."""
    timeout: float | None = checked(None, Constraint(above=0, at_most=1e9))
    """Seconds after which the search of an arm starts no new trial; null for no limit."""
    retry_failed: bool = False
    """Whether search trials that failed in earlier runs are trained again; diverged trials never are."""
    allow_code_changes: bool = False
    """Whether a study continues although the code of the user's classes has changed."""


@dataclass
class ConfirmConfig:
    """Confirmation of the best configurations on fresh seeds."""

    top_k: int = checked(3, Constraint(at_least=1, at_most=10_000))
    seeds: int = checked(10, Constraint(at_least=1, at_most=10_000))
    screening_seeds: int = checked(4, Constraint(at_least=1, at_most=10_000))
    """Number of seeds for every candidate; only the best one of each arm is retrained on all seeds."""


@dataclass
class RetrainConfig:
    """The configuration that `task=retrain` trains, as in best/ARM.yaml of an earlier run."""

    arm: str = ""
    rates: dict[str, float] = field(default_factory=dict)
    lr: float = checked(1e-3, Constraint("float", above=0, at_most=LARGEST_LR))
    weight_decay: float = checked(0.0, Constraint("float", at_least=0, at_most=LARGEST_LR))
    params: dict[str, Any] = field(default_factory=dict)
    """Options to set on the module's optimizer, by key of `optimizer`."""
    seed: int = checked(0, Constraint("int", at_least=0, below=2**63))
    """Seed of the retraining; the data split depends on the top-level `seed`."""


@dataclass
class BatchNormConfig:
    """Removal of a module's BatchNorm in the arms without BatchNorm."""

    replace: str | None = checked(None, Constraint(one_of=("identity",)))
    """identity: replace each BatchNorm by an identity; null: keep it."""


@dataclass
class SitesConfig:
    """Dropout sites of the module."""

    kinds: dict[str, str] = field(default_factory=dict)
    """Kind by site name or pattern, where the inferred one is wrong; it decides the typical rate."""
    per_call: list[str] = checked((), Constraint("str", most_items=10_000))
    """Names or patterns of sites with one rate per call in a forward pass: ``drop``, ``drop@2`` and so on."""
    insert: Any = None
    """Where to insert dropout: after_activation, a name, a pattern or a type, or a list of these."""
    where = None
    """Set from Python only: types of submodules in addition to names; not a configuration key."""


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
    """search; work (train trials of a study that another process runs); plan (show how trials would train);
    sites (list dropout sites); retrain; or evidence (measure an earlier run)."""
    monitor: str = "val_loss"
    mode: str = checked("min", Constraint(one_of=("min", "max")))
    """Whether the monitored metric is minimized or maximized."""
    unit: str = ""
    """Unit of the monitored metric in reports: `%`, `nats`; none is guessed."""
    arms: list[str] = field(default_factory=lambda: list(DEFAULT_ARMS))
    arm_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the model by arm."""
    batchnorm: BatchNormConfig = field(default_factory=BatchNormConfig)
    seed: int = checked(0, Constraint(at_least=0, below=2**63))
    budget: str | None = None
    """Limit of the run: ``20m``, ``2h``, ``500 trials``. It determines trials, candidates and seeds."""
    output_dir: str = "outputs/${study.name}"


def is_from_python(config: Config) -> bool:
    """Return whether Python passes the module or the data, so that no command can build them."""
    return config.model.made_by is not None or config.data.made_by is not None


def takes_optimizer(config: Config) -> bool:
    """Return whether the group `optimizer` is passed to the model, as ``optimizer: ${optimizer}``."""
    return any(isinstance(value, OptimizerConfig) for value in arguments(config.model).values())
