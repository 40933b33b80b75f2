"""Validation of all jobs of a sweep (``-m model=mlp,cnn``) before the first one starts."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from dropsearch.config.compose import typed
from dropsearch.config.messages import ConfigurationErrors, one_line
from dropsearch.config.schema import Config
from dropsearch.core.errors import BAD_INPUT, InputError
from dropsearch.core.printable import tell


class CheckJobs(Callback):
    """Exits with status 2 before anything is written if any job of a sweep is invalid."""

    def on_multirun_start(self, config: DictConfig, config_name: str | None = None, **_: Any) -> None:
        """Check every job; Hydra calls this before its sweeper creates files."""
        given: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        try:
            check_jobs(config_name or "config", given)
        except InputError as error:
            _refuse(str(error))
        except ConfigurationErrors as error:
            _refuse(one_line(error))


def _refuse(message: str) -> None:
    # Hydra turns other exceptions of a callback into warnings and continues.
    tell(f"dropsearch: {message}")
    sys.exit(BAD_INPUT)


def check_jobs(config_name: str, overrides: Sequence[str]) -> None:
    """Compose and check every job of a sweep over these overrides."""
    begun: dict[tuple[str, str], str] = {}
    jobs = _jobs(OverridesParser.create().parse_overrides(list(overrides)))
    composed = [
        (job, compose(config_name, job)) for job in jobs
    ]  # checks import user classes, so compose all jobs first
    for job, raw in composed:
        config = typed(raw)
        if config.task != "search":
            continue
        first = begun.setdefault(_study(config), " ".join(job))
        if first != " ".join(job):
            raise InputError(
                f'study.name must differ between the jobs of a sweep, got "{config.study.name}" for both '
                f'"{first}" and "{" ".join(job)}": include what differs, for example '
                f"'study.name=${{model.name}}-${{data.name}}-${{seed}}'"
            )


def _study(config: Config) -> tuple[str, str]:
    """Return the key that no two jobs may share: study name and storage, or output directory."""
    return config.study.name, config.study.storage or config.output_dir


def _jobs(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Yield the overrides of each job, split as by Hydra's sweeper."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [str(override.input_line)]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise InputError(f"{key} must list the values of a sweep, such as {key}=A,B, got {override.input_line}")
    return (list(job) for job in itertools.product(*values.values()))
