"""Optional dependencies: which extra of the package brings which library."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from dropsearch.core.errors import InputError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "search": ("optuna", "hydra", "omegaconf", "scipy", "cloudpickle"),
    "report": ("matplotlib", "jinja2", "pandas"),
    "data": ("sklearn", "PIL", "scipy"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard",),
    "postgres": ("psycopg",),
    "ray": ("ray",),
}
"""Modules that each extra installs in addition to torch, lightning and numpy, which are required."""

APART = ("postgres", "ray", "wandb", "tensorboard")
"""Extras that `dropsearch[all]` leaves out."""
EVERYTHING = '"dropsearch[all]" for everything'


class MissingExtraError(InputError, ImportError):
    """A library that this part of dropsearch needs is not installed."""


def require(purpose: str, *extras: str) -> None:
    """Raise `MissingExtraError` unless the libraries of some extras, which `purpose` needs, are installed."""
    for extra in extras:
        missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
        if missing:
            raise MissingExtraError(
                f"{purpose} needs {', '.join(missing)} (not installed): pip install "
                f'"dropsearch[{extra}]"{", or " + EVERYTHING if extra not in APART else ""}'
            )
