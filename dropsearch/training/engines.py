"""Registry of engines by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dropsearch.core.errors import InputError, close_match
from dropsearch.training.planning.plan import Plan
from dropsearch.training.protocols import CheckpointPath, Engine, TrainerSettings
from dropsearch.training.sequential import ModuleFactory, SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine

MakeEngine = Callable[[ModuleFactory, Any, TrainerSettings, Plan, CheckpointPath], Engine]
"""Creates an engine from the module factory, data, training settings, plan and checkpoint paths."""


def _sequential(
    make: ModuleFactory, data: Any, settings: TrainerSettings, plan: Plan, checkpoint_path: CheckpointPath
) -> Engine:
    return SequentialEngine(make, data, settings, checkpoint_path, plan.reason)


def _vectorized(
    make: ModuleFactory, data: Any, settings: TrainerSettings, plan: Plan, checkpoint_path: CheckpointPath
) -> Engine:
    settings = dataclasses.replace(settings, convolutions=plan.convolutions)
    return VectorizedEngine(make, data.in_rows(), settings, plan.width, checkpoint_path)


ENGINES: Mapping[str, MakeEngine] = {
    "sequential": _sequential,
    "vectorized": _vectorized,
}
"""All engines. To add one, write its file, list it here, and add a file in conf/engine.

`engine=auto` chooses between vectorized and sequential; other engines are used only if selected.
"""


def check_engine(name: str) -> None:
    """Check that an engine exists.

    Raises:
        InputError: It does not exist.
    """
    known = ("auto", *ENGINES)
    if name not in known:
        raise InputError(f'engine.name must be one of {", ".join(known)}, got "{name}"{close_match(name, known)}')
