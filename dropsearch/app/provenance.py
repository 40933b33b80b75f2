"""What a result came from: versions, the state of the code, and the command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dropsearch

_PACKAGES = ("torch", "lightning", "optuna", "hydra-core", "mlflow", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of dropsearch, of Python and of what decides the numbers."""
    found = {"dropsearch": dropsearch.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, str]:
    """Return MLflow's tags for the commit that the working folder is at; empty outside a checkout."""
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
    """Return this interpreter as one would type it from the working folder."""
    executable, here = Path(sys.executable), Path.cwd()
    return str(executable.relative_to(here)) if executable.is_relative_to(here) else str(executable)


def this_command() -> str:
    """Return the command that was given, so that it can be given again."""
    return shlex.join([python(), "-m", "dropsearch", *sys.argv[1:]])


def commands(output_dir: Path, best: str | None, mlflow: Mapping[str, str]) -> dict[str, str]:
    """Return the exact commands that lead on from a run, by what they do.

    Args:
        output_dir: Where the run's files are.
        best: The arm whose confirmed model is best, None where none was confirmed.
        mlflow: What the tracker tells of itself, empty where nothing is tracked.
    """
    found: dict[str, str] = {}
    uri = mlflow.get("tracking_uri", "")
    if uri and not uri.startswith(("http://", "https://", "databricks")):
        found["mlflow"] = shlex.join([python(), "-m", "mlflow", "ui", "--backend-store-uri", shorter(uri)])
    if best:
        found["reload"] = reload_command(os.path.join(output_dir, "best", f"{best}.ckpt"))
        folder = os.path.join(output_dir, "best")
        found["retrain"] = shlex.join([python(), "-m", "dropsearch", "--config-dir", folder, "--config-name", best])
    found["continue"] = this_command()
    return found


def reload_command(checkpoint: str) -> str:
    """Return the command that loads a checkpoint and prints its network."""
    # In double quotes, for the shell wants the single ones.
    quoted = json.dumps(checkpoint, ensure_ascii=False)
    code = f"from dropsearch import Classifier; print(Classifier.load_from_checkpoint({quoted}))"
    return shlex.join([python(), "-c", code])


def shorter(uri: str) -> str:
    """Return a SQLite URI relative to the working folder where that is shorter."""
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and path.is_relative_to(Path.cwd()):
        return f"sqlite:///{path.relative_to(Path.cwd())}"
    return uri
