"""Provenance of results: versions, state of the code, and commands."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dropsearch._compat.database_urls import sqlite_file, sqlite_url
from dropsearch.config.plain import plain, secret_reference
from dropsearch.config.schema import Config, is_from_python
from dropsearch.core import VERSION
from dropsearch.core.printable import MASK, holds_secret, masked, masked_values
from dropsearch.core.records import ArmOutcome, ComparisonMetric, Summary
from dropsearch.experiment.context import ExperimentContext

_PACKAGES = ("torch", "lightning", "optuna", "hydra-core", "mlflow", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of dropsearch, Python and libraries that affect results."""
    return {"dropsearch": VERSION, "python": platform.python_version(), **_installed()}


@cache
def _installed() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_state() -> dict[str, str]:
    """Return MLflow's tags for the commit of the working folder; empty outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    branch, changes = _git("rev-parse", "--abbrev-ref", "HEAD"), _git("status", "--porcelain")
    return {
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": branch,
        "mlflow.source.git.dirty": str(bool(changes)).lower(),
    }


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def python() -> str:
    """Return the command for this interpreter from the working folder."""
    executable, here = Path(sys.executable), Path.cwd()
    return str(executable.relative_to(here)) if executable.is_relative_to(here) else str(executable)


def this_command(without: str = "") -> str:
    """Return the command of this process so that it can be repeated, without one of its words.

    Passwords and tokens are replaced by references to environment variables.
    """
    words = (_without_secret(word) for word in sys.argv[1:] if word != without)
    return shlex.join([python(), "-m", "dropsearch", *words])


def _without_secret(word: str) -> str:
    key, equals, value = word.partition("=")
    given = int(value) if value.isdecimal() else value
    if masked(word) == word and not holds_secret(key.lstrip("+~"), given):
        return word
    if not equals:
        return masked(word)
    # Hydra's grammar takes a reference within another one only in quotes.
    return f"{key}={secret_reference(key)}" if given is value else f"{key}='{secret_reference(key, is_text=False)}'"


def shown_config(config: Config, of_data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a configuration as nested dictionaries with masked passwords and tokens, for reports and trackers.

    `of_data` are arguments of the module that its data give.
    """
    values = plain(config)
    return masked_values({**values, "model": {**(of_data or {}), **values["model"]}})


def summary_of(
    context: ExperimentContext, arms: Mapping[str, ArmOutcome], metric: ComparisonMetric, **more: Any
) -> Summary:
    """Return the summary of a run: its results, what they come from, and `more` fields."""
    config = context.config
    return Summary(
        study=config.study.name,
        model=config.model.name,
        data=context.source.name,
        seed=config.seed,
        versions=versions(),
        sites=context.sites,
        arms=arms,
        config=shown_config(config, context.modules.data_arguments),
        monitor=context.monitor,
        comparison_metric=metric,
        **more,
    )


def commands(config: Config, best: str | None, tracking: Mapping[str, str]) -> dict[str, str]:
    """Return the follow-up commands of a run by purpose; `best` is the arm with the best confirmed model."""
    found = _curves(tracking)
    by_function = is_from_python(config)
    if best and config.model.made_by is None:
        found["reload"] = reload_command(config.output_dir, best)
    if best and not by_function:
        folder = os.path.join(config.output_dir, "best")
        found["retrain"] = shlex.join([python(), "-m", "dropsearch", "--config-dir", folder, "--config-name", best])
    if not by_function:
        found["continue"] = this_command(without="task=evidence")
    return found


def _curves(tracking: Mapping[str, str]) -> dict[str, str]:
    """Return commands or URLs that show the tracked curves, by tracker."""
    found, uri = {}, tracking.get("tracking_uri", "")
    # MLflow's pages are those of language models where the link does not say otherwise.
    kind = "workflowType=machine_learning"
    page = f"/#/experiments/{tracking.get('experiment_id')}/runs/{tracking.get('run_id')}?{kind}"
    if uri.startswith(("http://", "https://")):
        found["run"] = f"{uri.rstrip('/')}{page}"
    elif uri and not uri.startswith("databricks"):
        command = shlex.join([python(), "-m", "mlflow", "ui", "--backend-store-uri"])
        found |= {"mlflow": f"{command} {_database(uri)}", "run": f"http://127.0.0.1:5000{page}"}
    if url := tracking.get("url"):
        found["wandb"] = url
    elif tracking.get("mode") == "offline":
        found["wandb"] = f"wandb sync {shlex.quote(tracking['dir'])}/offline-run-*"
    if folder := tracking.get("logdir"):
        found["tensorboard"] = shlex.join(["tensorboard", "--logdir", folder])
    return found


def _database(uri: str) -> str:
    """Return MLflow's database URL for a command, as a variable if it contains a password."""
    return '"$MLFLOW_TRACKING_URI"' if MASK in uri else shlex.quote(shorter(uri))


def reload_command(folder: str, arm: str) -> str:
    """Return a command that loads the winner of an arm from an output directory and prints its network."""
    # In double quotes where it can be, for the shell wants the single ones.
    load = f"net = SearchResult.load({json.dumps(folder, ensure_ascii=False)}).load_best(arm={json.dumps(arm)})"
    return shlex.join([python(), "-c", f"from dropsearch import SearchResult; {load}; print(net)"])


def shorter(uri: str) -> str:
    """Return an SQLite URI relative to the working folder if that is shorter."""
    if not uri.startswith("sqlite") or not (path := sqlite_file(uri)).is_relative_to(Path.cwd()):
        return uri
    return sqlite_url(path.relative_to(Path.cwd()))
