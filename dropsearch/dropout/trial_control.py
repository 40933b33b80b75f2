"""The dropout control of a sequential trial, and the random bits of its masks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropsearch._compat.python_calls import Call, can_be_shown, showing
from dropsearch._compat.torch_modules import named_parts
from dropsearch.core.global_state import changed, python_states, reseed, reseed_python, torch_states
from dropsearch.core.seeds import derived_seed
from dropsearch.dropout.control import DropoutControl
from dropsearch.dropout.keyed_draws import Draw
from dropsearch.dropout.mask_bits import DeviceBits, SiteBits
from dropsearch.dropout.ops import OPS, DropCall
from dropsearch.dropout.places import reached_functions
from dropsearch.dropout.rates import Rate

VALIDATION, TRAINING_PART = "evaluation", "training part"
"""Data of a validation: the validation set, or the part of the training set that is also evaluated."""

SHOWN = frozenset(function for function in (*OPS, F.multi_head_attention_forward) if can_be_shown(function))
"""Dropout functions in plain Python, whose calls can be seen without a function mode."""
_ELEMENTWISE = SHOWN - {F.multi_head_attention_forward}
"""Those whose third argument says whether they drop."""
_RESTORING = frozenset({"fork_rng", "isolate_rng", "set_rng_state"})
"""Names of functions that restore PyTorch's generator, so that its state does not show that code drew."""
OBSERVED = 2
"""Number of steps of each kind with the function mode on, before it may be disabled."""


def may_hide(model: nn.Module) -> bool:
    """Return whether code of a model names a function that can drop unseen in a later step, at its own rate."""
    modules = [module for _, module in named_parts(model)]
    if any(isinstance(module, nn.RNNBase) and module.num_layers > 1 for module in modules):
        return True
    return any(_names_hidden(reached_functions(kind)) for kind in {type(module) for module in modules})


@cache
def _names_hidden(functions: frozenset[Any]) -> bool:
    """Return whether one of the functions that code names drops unseen, or restores PyTorch's generator."""
    hidden = OPS.keys() - SHOWN
    return any(each in hidden or getattr(each, "__name__", "") in _RESTORING for each in functions)


@dataclass
class FirstSteps:
    """What the first steps of trials showed of their code; trials with the same code share it."""

    observed: Counter[str] = field(default_factory=Counter)
    """Number of steps with the function mode on, by kind."""
    draw_in_python: bool = False
    """Whether a step draws from the generators of Python or NumPy."""
    need_mode: bool = False
    """Whether something is random that only the function mode sees."""


class SeededNoise:
    """Random bits of masks for one trial, the same on any device and engine."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step = 0
        self._key = seed
        self._sites = SiteBits()
        self._on_device: dict[tuple[str, torch.Size], DeviceBits] = {}

    def begin(self, phase: str, step: int) -> None:
        """Start a step. Each phase has its own numbers; the name of training is empty."""
        self.step = step
        self._key = derived_seed(self.seed, phase) if phase else self.seed

    def python_seed(self) -> int:
        """Return the seed of Python's and NumPy's generators in this step."""
        return derived_seed(self._key, "python", self.step)

    def remembered(self) -> Callable[[], AbstractContextManager[None]]:
        """Return a factory of contexts that restore the numbers of this step."""
        return partial(changed, self, _key=self._key, step=self.step)

    def bits(self, site: str, shape: torch.Size, device: torch.device) -> Tensor:
        """Return int16 bits of `shape` for a site at the current step, on `device`."""
        if draws(device):
            bits = self._on_device.get((site, shape))
            if bits is None:
                bits = self._on_device[site, shape] = DeviceBits({site: shape}, 1, device)
            return bits.draw([self._key], [self.step])[site][0]
        numbers = self._sites.draw(self._key, site, self.step, math.prod(shape))
        bits = torch.from_numpy(numbers.reshape(shape))
        return bits if device.type == "cpu" else bits.to(device)


def draws(device: torch.device) -> bool:
    """Return whether bits are drawn on a device; otherwise on the host, since Philox in torch is slow on a CPU."""
    return device.type == "cuda"


class HiddenDrawError(Exception):
    """A step drew random numbers by a function that only a function mode sees, after steps without such calls."""


class TrialControl(DropoutControl):
    """The control of one trial: its rates, and masks as functions of its seed, site, step and call.

    Inside steps, all other random numbers from torch are such functions too, unless `keys` is False. `first_steps` is
    what earlier trials with the same code showed (see `whole_trial`).
    """

    def __init__(
        self,
        model: nn.Module,
        rates: Mapping[str, float],
        seed: int,
        *,
        off: bool = False,
        keys: bool = True,
        first_steps: FirstSteps | None = None,
    ) -> None:
        self.seeded = SeededNoise(seed)
        super().__init__(model, {site: Rate.of(rate) for site, rate in rates.items()}, self.seeded.bits, off=off)
        self._keys, self._first_steps = keys, first_steps or FirstSteps()
        self._shown = False
        """Whether this control handles calls of functions in `SHOWN`, since no mode sees them."""
        self._evaluating = VALIDATION
        """The data of evaluation steps."""
        self._evaluates = False
        self.evaluations: Counter[str] = Counter()
        """Number of validation steps so far, by data: `VALIDATION` or `TRAINING_PART`."""
        self.evaluations_draw = False
        """Whether a validation step drew random numbers or dropped."""

    def training_step(self, step: int) -> AbstractContextManager[None]:
        """Control training step `step`, from 0, and the code between it and the next step."""
        self.seeded.begin("", step)
        return self._seen("training", evaluates=self._evaluates)

    def evaluation_step(self) -> AbstractContextManager[None]:
        """Control one validation or test step, some of which drop or draw on purpose."""
        of = self._evaluating
        self.seeded.begin(of, self.evaluations[of])
        self.evaluations[of] += 1
        return self._seen(of, evaluates=True)

    def evaluating(self, of: str) -> AbstractContextManager[None]:
        """Use `of` as the data of evaluation steps in this context."""
        return changed(self, _evaluating=of)

    @contextmanager
    def whole_trial(self) -> Iterator[None]:
        """Control every drop within the context, inside and outside of steps.

        A function mode sees each PyTorch call, which costs a tenth of a small step or more. It is on for the first
        steps of each kind, in recomputation, and in hooks inside `seeing`. It is off in later steps if all randomness
        of the first ones came from functions in `SHOWN`, whose calls are still seen, and if the code names no other
        function that drops. A later step that draws by any other function raises `HiddenDrawError`.
        """
        self.seeded.begin("outside", 0)
        with self.watching(), showing(SHOWN, self._answer):
            self.restart()
            if self._held or self._functions or may_hide(self._model):
                self._first_steps.need_mode = True
            with changed(self, _shown=True):
                yield

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """Enable the function mode while the context lasts."""
        with self.hidden(), super().seeing():
            yield

    @contextmanager
    def hook(self, name: str, epoch: int) -> Iterator[None]:
        """Control a hook of an epoch; its random numbers are functions of the seed, its name and the epoch."""
        reseed(derived_seed(self.seeded.seed, name, epoch))
        with self.seeing():
            yield

    def hidden(self) -> AbstractContextManager[None]:
        """Leave calls of functions in `SHOWN` to a mode or to another control within the context."""
        return changed(self, _shown=False)

    def _answer(self, function: FunctionType, run: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Handle a call of a function in `SHOWN` as the mode does; leave those of an evaluation that drop nothing."""
        if not self._shown or (self._evaluates and function in _ELEMENTWISE and args[2:3] == (False,)):
            return run(*args, **kwargs)
        self._shown = False  # as in `hidden`, which costs more
        try:
            return self.__torch_function__(function, (), args, kwargs)
        finally:
            self._shown = True

    @contextmanager
    def _seen(self, kind: str, *, evaluates: bool) -> Iterator[None]:
        """See the drops and draws of one step."""
        self.restart()
        known, outer = self._first_steps, (self.keys_draws, self._evaluates)
        states = self._seeded_python(known, is_first=known.observed[kind] < OBSERVED)
        asks = self._shown and not known.need_mode
        is_known = asks and known.observed[kind] >= OBSERVED
        before = torch_states() if asks else ()
        self.keys_draws, self._evaluates = self._keys, evaluates  # as by `changed`, which costs more
        try:
            if is_known:
                yield
            else:
                known.observed[kind] += 1
                with self.seeing():
                    yield
        finally:
            self.keys_draws, self._evaluates = outer
        known.draw_in_python |= bool(states) and python_states() != states
        self.evaluations_draw |= evaluates and known.draw_in_python
        if asks:
            drew = torch_states() != before
            known.need_mode |= drew or not (is_known or self.called <= SHOWN)
            if is_known and drew:
                raise HiddenDrawError

    def _seeded_python(self, known: FirstSteps, *, is_first: bool) -> tuple[object, ...]:
        """Seed the generators of Python and NumPy if a step may draw from them; return the states of a first step."""
        if self._keys and (is_first or known.draw_in_python):
            reseed_python(self.seeded.python_seed())
        return python_states() if self._keys and is_first else ()

    def of_copy(self, model: nn.Module) -> TrialControl:
        """Return a control for a copy of the model, which continues the count of evaluations."""
        other = TrialControl(model, {}, self.seeded.seed, off=self.off, keys=self._keys)
        other.rates, other.evaluations = self.rates, self.evaluations
        return other

    def on_drop(self, site: str, call: DropCall, original: Callable[..., Tensor]) -> Tensor:
        """Drop at the site's rate."""
        self.evaluations_draw |= self._evaluates
        return super().on_drop(site, call, original)

    def on_keyed(self, name: str, draw: Draw, original: Callable[[], Any]) -> Any:
        """Draw from the noise of the masks if possible."""
        self.evaluations_draw |= self._evaluates
        return super().on_keyed(name, draw, original)

    def remembered(self) -> Callable[[], AbstractContextManager[None]]:
        """Remember the current position of the pass and its random numbers; return a factory of restoring contexts."""
        again, seeded, keys = super().remembered(), self.seeded.remembered(), self.keys_draws

        @contextmanager
        def both() -> Iterator[None]:
            with changed(self, keys_draws=keys), again(), seeded():
                yield

        return both
