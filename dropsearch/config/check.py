"""Validation of a configuration before anything is loaded or written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from dropsearch.config.budget import parsed
from dropsearch.config.params_rules import params_problems
from dropsearch.config.plain import plain
from dropsearch.config.schema import HIGHEST_RATE, TRACKERS, Config, RetrainConfig, arguments
from dropsearch.core.constraints import argument_problems, field_problems
from dropsearch.core.errors import InputError, close_match
from dropsearch.core.printable import has_control_characters, masked, remember_secrets
from dropsearch.core.records import ARMS
from dropsearch.core.records.arms import KINDS
from dropsearch.core.user_errors import USER_ERRORS

LONGEST_NAME = 200
"""Maximum number of bytes of a study's name, which is part of paths and database keys."""
LONGEST_UNIT = 20
MOST_SAMPLES = 10_000
"""Maximum number of Monte Carlo passes, all of which are in memory at once."""

_REFUSED = {
    "fast_dev_run": "it trains nothing",
    "check_val_every_n_epoch": "every epoch is validated",
    "limit_val_batches": "every epoch is validated",
    "barebones": "it logs nothing",
    "max_steps": "trials train for trainer.max_epochs",
    "devices": "a trial trains on one device",
    "num_nodes": "a trial trains on one device",
    "gradient_clip": "use trainer.gradient_clip_val, which works with every engine",
}
"""Trainer arguments that contradict how trials are trained, with the reason."""


def check(config: Config) -> None:
    """Check a configuration, and remember its passwords and those of the environment, which no output shows.

    Raises:
        InputError: The first violated rule, with the value and the key.
    """
    remember(config)
    problem = next(_problems(config), None)
    if problem:
        raise InputError(f"{problem} (see {_file(config, problem.split()[0])})")


def remember(config: Config) -> None:
    """Remember the passwords and tokens of a configuration and of the environment, and forget those before."""
    remember_secrets(plain(config), os.environ)


def _file(config: Config, key: str) -> str:
    """Return the file that documents a key."""
    group, _, rest = key.partition(".")
    if group == "retrain":
        return "best/ARM.yaml of a run"
    if group == "trainer":
        return "conf/trainer/default.yaml"
    if group in ("model", "data"):
        chosen = getattr(config, group)
        is_ours = str(chosen._target_).startswith("dropsearch.")
        return f"conf/{group}/{chosen.name}.yaml" if is_ours else f"the class {chosen._target_}"
    named = group != "study" and rest and getattr(getattr(config, group, None), "name", "")
    return f"conf/{group}/{named}.yaml" if named and rest != "name" else "conf/config.yaml"


def _problems(config: Config) -> Iterator[str]:
    yield from _values(config)
    yield from _arms(config.arms)
    yield from _of_arms(config)
    yield from _insertion(config.sites.insert)
    yield from _trainer(config)
    yield from _kinds(config.sites.kinds)
    yield from _ranges(config)
    yield from _engine(config)
    yield from params_problems(config, _values)
    yield from _names(config)
    yield from _evidence(config)
    yield from _tracking(config.tracking.name)
    if config.budget is not None and config.task == "work":
        yield f"budget must be left out with task=work, because the main run spends it, got {config.budget}"
    if config.budget is not None and parsed(config.budget) is None:
        yield f'budget must be a duration or a number of trials, such as 20m, 2h or "500 trials", got "{config.budget}"'
    if config.budget is not None and config.study.repeats > 1:
        yield f"study.repeats must be 1 with a budget, got {config.study.repeats}"
    if config.task == "retrain":
        yield from _retrain(config)
    elif not config.retrain.arm:  # a file of best/ has one, and can be used with other tasks
        for key, value in vars(config.retrain).items():
            if value != getattr(RetrainConfig(), key):
                yield f"retrain.{key} must be left out without task=retrain, which alone reads it, got {value}"


def _values(config: Config) -> Iterator[str]:
    """Yield violations of single values, and of optimizer values in combination."""
    yield from field_problems(config)
    yield from _classes(config)
    if len(config.optimizer.betas) != 2:
        yield f"optimizer.betas must be two numbers in [0, 1), got {config.optimizer.betas}"
    if config.optimizer.nesterov and config.optimizer.momentum == 0:
        yield "optimizer.momentum must be above 0 with optimizer.nesterov=true, got 0"


def _tracking(given: Any) -> Iterator[str]:
    names = [given] if isinstance(given, str) else given
    known = ", ".join(TRACKERS)
    if not isinstance(names, Sequence) or not names:
        yield f"tracking.name must name at least one of {known}, got {given!r}"
        return
    for name in names:
        if name not in TRACKERS:
            yield f'tracking.name must be of {known}, got "{name}"{close_match(str(name), TRACKERS)}'


def _classes(config: Config) -> Iterator[str]:
    """Yield violations of the constraints that classes declare for their arguments."""
    for group in ("model", "data"):
        chosen: Any = getattr(config, group)
        module, _, name = chosen._target_.rpartition(".")
        if chosen.made_by is None and module:
            try:
                target = getattr(import_module(module), name)
            except USER_ERRORS:  # an import may raise anything; building the object reports it
                continue
            yield from argument_problems(target, arguments(chosen), f"{group}.")


def _arms(arms: Sequence[str]) -> Iterator[str]:
    known = ", ".join(ARMS)
    if not arms:
        yield f"arms must include at least one of {known}, got an empty list"
    for arm in arms:
        if not isinstance(arm, str) or arm not in ARMS:  # the schema accepts nested lists
            yield f'arms must be of {known}, got "{arm}"{close_match(str(arm), ARMS)}'
        if list(arms).count(arm) > 1:
            yield f'arms must include each arm once, got "{arm}" {list(arms).count(arm)} times'


def _of_arms(config: Config) -> Iterator[str]:
    """Yield violations in the settings that differ between arms."""
    given = arguments(config.model)
    for arm, values in config.arm_args.items():
        if arm not in ARMS:
            yield f'arm_args must be of {", ".join(ARMS)}, got "{arm}"{close_match(arm, ARMS)}'
        elif not isinstance(values, dict) or not values:
            yield f"arm_args.{arm} must be arguments of {config.model.name}, such as {{norm: batch}}, got {values}"
        elif ARMS[arm].batchnorm and (same := [k for k, v in values.items() if k in given and given[k] == v]):
            yield (
                f"model.{same[0]} must not be {given[same[0]]}, which arm_args.{arm} gives to the arms with BatchNorm "
                "only: set another value"
            )
    for arm in config.arms:
        is_known = isinstance(arm, str) and arm in ARMS
        if is_known and ARMS[arm].batchnorm and not (config.batchnorm.replace or config.arm_args.get(arm)):
            yield (
                f"arms must not include {arm} unless the configuration says how it gets BatchNorm, got "
                f"{', '.join(config.arms)}: set arm_args={{{arm}: {{ARGUMENT: VALUE}}}}, or batchnorm.replace=identity"
                " to remove the module's BatchNorm in the other arms"
            )


def _insertion(given: Any) -> Iterator[str]:
    listed = given if isinstance(given, list) else [given]
    if given is not None and not (listed and all(isinstance(each, str) and each for each in listed)):
        yield (
            "sites.insert must be after_activation, or a name, pattern or type of submodules, or a list of "
            f"these, got {given!r}: for example sites.insert=[encoder.*.relu] or sites.insert=[torch.nn.ReLU]"
        )


def _trainer(config: Config) -> Iterator[str]:
    for name in arguments(config.trainer):
        if name in _REFUSED:
            yield f"trainer.{name} must be left out: {_REFUSED[name]}"


def _kinds(kinds: Mapping[str, str]) -> Iterator[str]:
    for site, kind in kinds.items():
        if kind not in KINDS:
            yield f'sites.kinds must be of {", ".join(KINDS)}, got "{kind}" for {site}{close_match(kind, KINDS)}'


def _ranges(config: Config) -> Iterator[str]:
    space = config.space
    for key, low, high in (
        ("space", space.low, space.high),
        ("space.lr", space.lr.low, space.lr.high),
        ("space.weight_decay", space.weight_decay.low, space.weight_decay.high),
    ):
        if low > high:
            yield f"{key}.low must be at most {key}.high, got low={low:g}, high={high:g}"
    if space.low == space.high and space.zero_share > 0:
        yield f"space.low must be below space.high while space.zero_share is above 0, got both {space.low:g}"


def _engine(config: Config) -> Iterator[str]:
    counts = (
        ("engine.width", config.engine.width, 1024),
        ("engine.processes", config.engine.processes, 1024),
        ("engine.threads", config.engine.threads, 1024),
        ("cluster.workers", config.cluster.workers, 100_000),
    )
    for key, value, most in counts:
        if value != "auto" and not (value.isdecimal() and 1 <= int(value) <= most):
            yield f'{key} must be auto or a number from 1 to {most}, got "{value}"'
    devices = config.engine.devices
    listed = devices if isinstance(devices, list) else []
    are_indices = all(type(index) is int and index >= 0 for index in listed) and len({*map(str, listed)}) == len(listed)
    if devices != "auto" and not (listed and are_indices):
        yield f"engine.devices must be auto or a list of different GPUs such as [0,1], got {devices}"
    if config.cluster.name == "ray" and devices != "auto":
        yield f"engine.devices must be auto with cluster=ray, which gives each worker its GPU, got {devices}"
    threads = config.engine.threads
    if config.cluster.name == "ray" and threads != "auto":
        yield f"engine.threads must be auto with cluster=ray, which gives each worker its cores, got {threads}"


def _names(config: Config) -> Iterator[str]:
    given = (("study.name", config.study.name), ("output_dir", config.output_dir), ("monitor", config.monitor))
    places = (("study.storage", config.study.storage), ("tracking.uri", config.tracking.uri))
    places += (("study.warm_start", config.study.warm_start),)
    for key, value in (*given, *((key, place) for key, place in places if isinstance(place, str))):
        if not value.strip() or has_control_characters(value):
            yield f"{key} must be a name on one line, got {masked(value)!r}"
    if has_control_characters(config.unit) or len(config.unit) > LONGEST_UNIT:
        yield f"unit must be at most {LONGEST_UNIT} characters on one line, got {config.unit!r}"
    if len(config.study.name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        yield f'study.name must have at most {LONGEST_NAME} bytes, got "{config.study.name[:40]}…"'
    if {".", "..", ""} & set(config.study.name.split("/")):
        yield f'study.name must be a name, or names between slashes, got "{config.study.name}"'


def _evidence(config: Config) -> Iterator[str]:
    samples = config.evidence.monte_carlo
    if samples != sorted(set(samples)) or not all(1 <= count <= MOST_SAMPLES for count in samples):
        yield f"evidence.monte_carlo must be increasing numbers from 1 to {MOST_SAMPLES}, got {samples}"
    if config.task == "evidence" and config.evidence.name == "off":
        yield "evidence must be on with task=evidence, got off"
    for name, value in vars(config.evidence).items():
        if value is True and config.evidence.name == "off":
            yield f"evidence must be on with evidence.{name}=true, got off"


def _retrain(config: Config) -> Iterator[str]:
    retrain = config.retrain
    if retrain.arm not in ARMS:
        yield f'retrain.arm must be one of {", ".join(ARMS)}, got "{retrain.arm}"{close_match(retrain.arm, ARMS)}'
    for site, rate in retrain.rates.items():
        if not isinstance(rate, int | float) or not 0 <= rate <= HIGHEST_RATE:
            yield f"retrain.rates must be in [0, {HIGHEST_RATE}], got {rate} for {site}"
