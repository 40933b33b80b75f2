"""Global reseeding in user code, made dependent on the trial's seed."""

from __future__ import annotations

import functools
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch

from dropsearch.core.seeds import derived_seed

_DATA = frozenset(
    {
        "prepare_data",
        "setup",
        "train_dataloader",
        "val_dataloader",
        "test_dataloader",
        "predict_dataloader",
        "__getitem__",
        "__iter__",
    }
)
"""Code locations where a fixed seed must stay, so that splits and examples are the same for all trials."""
_LIBRARIES = ("torch.", "lightning.", "pytorch_lightning.", "lightning_fabric.")
_SEEDED_BY_LIGHTNING = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")


@contextmanager
def reseeding_follows(seed: int) -> Iterator[None]:
    """Make calls that seed the global generators use a function of their seed and the trial's seed.

    Otherwise a module that calls ``seed_everything(1)`` starts from the same weights in every trial. Code that prepares
    or reads data gets the seed that it passes.

    Args:
        seed: The trial's seed.
    """
    before = {name: os.environ.get(name) for name in _SEEDED_BY_LIGHTNING}
    with ExitStack() as stack:
        for owner, name in _functions():
            original = getattr(owner, name)
            stack.callback(setattr, owner, name, original)
            setattr(owner, name, _following(original, seed))
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _functions() -> Iterator[tuple[Any, str]]:
    yield from ((torch, "manual_seed"), (torch.random, "manual_seed"), (random, "seed"), (np.random, "seed"))
    yield from ((torch.cuda, "manual_seed"), (torch.cuda, "manual_seed_all"))


def _following(original: Callable[..., Any], seed: int) -> Callable[..., Any]:
    process = os.getpid()

    @functools.wraps(original)
    def reseed(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        caller = sys._getframe(1)
        library = str(caller.f_globals.get("__name__")).startswith(("torch.", "dropsearch."))
        if not given or given[0] is None or library or os.getpid() != process or _reads_data(caller):
            return original(*args, **kwargs)
        return original(derived_seed(seed, "reseeded", str(given[0])))

    return reseed


def _reads_data(frame: FrameType | None) -> bool:
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name in _DATA and not name.startswith(_LIBRARIES):
            return True
        frame = frame.f_back
    return False
