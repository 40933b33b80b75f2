"""State that is put back: attributes, random generators, working folder, environment, and defaults of torch."""

from __future__ import annotations

import functools
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

import numpy as np
import torch

from dropsearch.core.seeds import derived_seed


@contextmanager
def changed(owner: Any, **values: Any) -> Iterator[None]:
    """Set attributes of an object or a module of Python; put them back when the context exits."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use a number of threads; put back the number of before when the context exits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def generators_kept() -> Callable[[], None]:
    """Return a function that puts back the present states of the generators of Python, NumPy and torch's CPU."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.default_generator.get_state()

    def put_back() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(cpu)

    return put_back


@contextmanager
def keeping_generators() -> Iterator[None]:
    """Restore the states of these generators when the context exits."""
    put_back = generators_kept()
    try:
        yield
    finally:
        put_back()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch; restore their states when the context exits."""
    put_back = generators_kept()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        if any(each.is_available() for each in (torch.cuda, torch.backends.mps, torch.xpu)):
            torch.manual_seed(seed)
        else:  # for a device that is not there torch would keep the stack of this call
            torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            put_back()


_SEEDS = (random.seed, np.random.seed)
"""The functions themselves, which `reseeding_follows` and others replace."""


def reseed_python(seed: int) -> None:
    """Seed the global generators of Python and NumPy."""
    for function in _SEEDS:
        function(seed % 2**32)


def python_states() -> tuple[object, ...]:
    """Return the states of the global generators of Python and NumPy."""
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), kind, np.asarray(keys).tobytes(), *rest


def reseed(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    reseed_python(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)


def torch_states() -> tuple[bytes, ...]:
    """Return the states of torch's global generators, on the CPU and on each device that is in use."""
    state = torch.default_generator.get_state().numpy().tobytes()
    if not torch.cuda.is_initialized():
        return (state,)
    return (state, *(each.get_state().numpy().tobytes() for each in torch.cuda.default_generators))


def generator_states() -> tuple[object, ...]:
    """Return the states of all these global generators, to detect whether code draws random numbers."""
    return *python_states(), *torch_states()


@contextmanager
def process_state_kept() -> Iterator[None]:
    """Restore working folder, environment, and torch's default dtype, grad mode and determinism at the end."""
    environment, dtype, grad = dict(os.environ), torch.get_default_dtype(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    with working_folder_kept():
        try:
            yield
        finally:
            if dict(os.environ) != environment:
                os.environ.clear()
                os.environ.update(environment)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grad)
            torch.use_deterministic_algorithms(deterministic, warn_only=warns)


@contextmanager
def working_folder_kept() -> Iterator[None]:
    """Restore the working folder at the end, because paths of a run may be relative to it."""
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            os.chdir(folder)


_DATA = frozenset(
    {
        "prepare_data", "setup", "train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader",
        "__getitem__", "__iter__",
    }
)  # fmt: skip
"""Code locations where a fixed seed must stay, so that splits and examples are the same for all trials."""
_LIBRARIES = ("torch.", "lightning.", "pytorch_lightning.", "lightning_fabric.")
_SEEDING: tuple[tuple[Any, str], ...] = (
    *((torch, "manual_seed"), (torch.random, "manual_seed"), (random, "seed"), (np.random, "seed")),
    *((torch.cuda, "manual_seed"), (torch.cuda, "manual_seed_all")),
)
_SEEDED_BY_LIGHTNING = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")


@contextmanager
def reseeding_follows(seed: int) -> Iterator[None]:
    """Make calls that seed the global generators use a function of their seed and the trial's seed.

    Otherwise a module that calls ``seed_everything(1)`` starts from the same weights in every trial. Code that prepares
    or reads data gets the seed that it passes.
    """
    with _seeding_replaced(lambda original: _following(original, seed)):
        yield


@contextmanager
def reseeding_ignored() -> Iterator[None]:
    """Make calls that seed the global generators do nothing, where no random number depends on these generators."""
    with _seeding_replaced(_ignored):
        yield


@contextmanager
def _seeding_replaced(change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _SEEDED_BY_LIGHTNING}
    with ExitStack() as stack:
        for owner, name in _SEEDING:
            original = getattr(owner, name)
            stack.callback(setattr, owner, name, original)
            setattr(owner, name, change(original))
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _ignored(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def reseed(*args: Any, **kwargs: Any) -> Any:
        return torch.default_generator if original.__module__ == "torch.random" else None

    return reseed


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
        if frame.f_code.co_name in _DATA and not name.startswith(_LIBRARIES) and not _is_of_model(frame):
            return True
        frame = frame.f_back
    return False


def _is_of_model(frame: FrameType) -> bool:
    """Return whether code is a method of a LightningModule without data of its own: its `setup` builds layers."""
    owner = next((frame.f_locals.get(name) for name in frame.f_code.co_varnames[:1]), None)
    loader = getattr(type(owner), "train_dataloader", None)
    return hasattr(owner, "training_step") and str(getattr(loader, "__module__", "")).startswith(_LIBRARIES)
