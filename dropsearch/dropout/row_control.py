"""The dropout control of stacked rows: each row has its own rates and the masks of a sequential trial."""

from __future__ import annotations

import dis
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dropsearch._compat.row_values import of_current_rows, outside, own_part, told_apart
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_state import reseed_python
from dropsearch.core.seeds import derived_seed
from dropsearch.dropout.control import DropoutControl, bits_shape
from dropsearch.dropout.keyed_draws import Draw, can_draw
from dropsearch.dropout.mask_bits import SiteBits
from dropsearch.dropout.mode import DropoutMode
from dropsearch.dropout.ops import DropCall
from dropsearch.dropout.own_sites import Scope
from dropsearch.dropout.places import codes_of, functions_of
from dropsearch.dropout.rates import KeepingFloat, LiveRate, Rate, called_live, of_tensor

Shapes = dict[str, torch.Size]
"""Shape of each mask of a step by call name: the site's name, ``drop@2`` for its second call."""

RowRates = dict[str, tuple[Tensor, Tensor, Tensor]]
"""Value, threshold and scale of each site's `Rate`, `[rows]` each, as arguments of `vmap`."""


_DRAWS_AT = 0.1
"""A rate at which operations with their own code draw; at 0 most do not."""


class _ShapeRecorder(DropoutMode):
    def __init__(self, model: nn.Module, sites: Iterable[str]) -> None:
        super().__init__(model)
        self.sites = set(sites)
        self.shapes: Shapes = {}
        self.keys_draws = self.sees_factories = True
        self._made: dict[int, tuple[str, Tensor]] = {}
        """Tensors created by factories by memory address, with the names of the calls."""

    def on_drop(self, site: str, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        if call.rate > 0 or site in self.sites:
            self.shapes[self.location.last_call] = call.mask_shape
        return original()

    def on_own(self, site: str, rate: float) -> float:
        return _DRAWS_AT if rate > 0 or site in self.sites else rate

    def on_keyed(self, name: str, draw: Draw, original: Callable[[], Any]) -> Any:
        self.shapes[name] = bits_shape(draw)
        filled = draw.into
        if filled is not None and (made := self._made.get(filled.untyped_storage().data_ptr())):
            self.shapes[made[0]] = torch.Size((1,))
        return original()

    def on_factory(self, name: str, original: Callable[[], Tensor]) -> Tensor:
        result = original()
        self._made[result.untyped_storage().data_ptr()] = (name, result)
        return result


def mask_shapes(model: nn.Module, sites: Iterable[str], run: Callable[[], Any]) -> Shapes:
    """Return the shapes of the masks that one training step of a single trial needs; `run` runs the step."""
    recorder = _ShapeRecorder(model, sites)
    with recorder.watching(), recorder.step():
        run()
    return recorder.shapes


def row_rates(rates: Sequence[Mapping[str, float]], dtype: torch.dtype, device: torch.device) -> RowRates:
    """Stack the rates of trials, which all have the same sites."""
    stacked: RowRates = {}
    for site in rates[0] if rates else ():
        rate = Rate.stack([row[site] for row in rates], dtype=dtype, device=device)
        stacked[site] = torch.as_tensor(rate.value), torch.as_tensor(rate.threshold), torch.as_tensor(rate.scale)
    return stacked


class DrawnBits(dict[str, Tensor]):
    """The random bits of rows for one step by name of the call, `[rows, *shape]` each, and those of further calls."""

    def __init__(self, bits: Mapping[str, Tensor], seeds: Sequence[int], steps: Sequence[int]) -> None:
        super().__init__(bits)
        self._seeds, self._steps = seeds, steps

    def python_seed(self) -> int:
        """Return the seed of Python's and NumPy's generators in the step of the first row."""
        return derived_seed(self._seeds[0], "python", self._steps[0])

    def copied(self) -> DrawnBits:
        """Return bits that do not share memory with the next draw."""
        return DrawnBits({site: each.clone() for site, each in self.items()}, self._seeds, self._steps)

    def further(self, site: str, shape: torch.Size, device: torch.device) -> Tensor:
        """Return the bits of a call that the first step did not make, or with another shape."""
        return RowBits({site: shape}, len(self._seeds), device).draw(self._seeds, self._steps)[site]


class RowBits:
    """The random bits of all rows' masks, drawn for one step at a time."""

    def __init__(self, shapes: Shapes, rows: int, device: torch.device) -> None:
        self.shapes = shapes
        self.device = device
        self._sites = SiteBits()
        self._host = {site: np.empty((rows, math.prod(shape)), np.int16) for site, shape in shapes.items()}

    def fields(self) -> list[Tensor]:
        """Return the memory of the bits."""
        return [torch.from_numpy(field) for field in self._host.values()]

    def draw(self, seeds: Sequence[int], steps: Sequence[int]) -> DrawnBits:
        """Return the bits of each site, int16 `[rows, *shape]`, equal to those of sequential trials.

        The tensors share memory with the next draw.
        """
        first_row: dict[tuple[int, int], int] = {}
        for row, key in enumerate(zip(seeds, steps, strict=True)):
            same = first_row.setdefault(key, row)  # with shared masks most rows have the same bits
            for site, field in self._host.items():
                field[row] = self._sites.draw(key[0], site, key[1], field.shape[1]) if same == row else field[same]
        drawn = {
            site: torch.from_numpy(field).view(len(field), *self.shapes[site]).to(self.device)
            for site, field in self._host.items()
        }
        return DrawnBits(drawn, seeds, steps)


class _RowNoise:
    """Provides the bits of the current row of `vmap`."""

    def __init__(self) -> None:
        self.rows: Mapping[str, Tensor] = {}
        self.drawn: DrawnBits | None = None
        """The bits of all rows; None if a step can only use those of `rows`, as on a device that records it."""

    def bits(self, site: str, shape: torch.Size, device: torch.device) -> Tensor:
        bits = own_part(self.rows.get(site))
        if bits is not None and bits.shape == shape:
            return bits
        if self.drawn is None:
            place, what = site.partition("~")[0], "other random numbers" if "~" in site else "other activations"
            raise UnsupportedError(f"a step draws {what} in {place} than the first step")
        with outside():
            further = self.drawn.further(site, shape, device)
        return of_current_rows(further)

    def zero(self, name: str) -> Tensor:
        """Return a batched 0: the first of the random bits times 0."""
        return self.rows[name].flatten()[0] * 0


@cache
def _calls_float(code: Any) -> bool:
    """Return whether a class or function calls `float`, which is a type to others, as in `dtype=float`."""
    functions = functions_of(frozenset({code})) if isinstance(code, type) else [code]
    lines = (each for function in functions for part in codes_of(function) for each in dis.get_instructions(part))
    return any(each.opname == "LOAD_GLOBAL" and each.argval == "float" and "NULL" in each.argrepr for each in lines)


class RowDropoutControl(DropoutControl):
    """The control inside ``torch.func.vmap``: `load` a row's rates and bits, then run the row's step."""

    def __init__(self, model: nn.Module) -> None:
        self._noise, self.draws_in_python = _RowNoise(), False
        super().__init__(model, {}, self._noise.bits)
        self.keys_draws = self.sees_factories = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow operations with their own dropout code, and functions that are called for each row."""
        with super().watching(), told_apart(self._begin_row):
            yield

    def _begin_row(self, row: int) -> None:
        """Let all rows make the same calls, which are counted once."""
        if row == 0:
            self._counts = self.location.counts()
        self.location.count_from(self._counts)

    def _rate(self, site: str, written: float) -> Rate:
        rate = super()._rate(site, written)
        return Rate(own_part(rate.value), own_part(rate.threshold), own_part(rate.scale))

    def begin(self, bits: Mapping[str, Tensor]) -> None:
        """Begin a step of rows with these bits; of `DrawnBits`, it may ask for further ones."""
        self._noise.drawn = bits if isinstance(bits, DrawnBits) else None
        if self.draws_in_python and self._noise.drawn is not None:
            reseed_python(self._noise.drawn.python_seed())

    def load(self, rates: Mapping[str, tuple[Tensor, Tensor, Tensor]], bits: Mapping[str, Tensor]) -> None:
        """Set the rates and bits of the row for the next step."""
        self.rates = {site: Rate(*fields) for site, fields in rates.items()}
        self._noise.rows = bits

    def names_in_own_code(self, code: Any) -> list[tuple[Any, str, Any, Any]]:
        """Keep the rates of rows where the code converts its rate to a float."""
        file = sys.modules.get(code.__module__) if _calls_float(code) else None
        return [(file, "float", vars(file).get("float", float), KeepingFloat)] if file is not None else []

    def in_own_code(self, scope: Scope, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a call inside an operation with its own code, with `LiveRate` numbers replaced by the rates of rows."""
        if any(isinstance(value, LiveRate) for value in (*args, *kwargs.values())):
            if not can_draw(getattr(func, "__name__", "")):
                return called_live(func, args, kwargs)
            args, kwargs = tuple(map(of_tensor, args)), {name: of_tensor(value) for name, value in kwargs.items()}
        return super().in_own_code(scope, func, args, kwargs)

    def on_keyed(self, name: str, draw: Draw, original: Callable[[], Any]) -> Any:
        """Draw from the noise of the masks, or raise `UnsupportedError`."""
        if draw.obstacle:
            raise UnsupportedError(f"a step draws random numbers that no trial's seed gives: {draw.obstacle}")
        try:
            return super().on_keyed(name, draw, original)
        except RuntimeError as error:
            if draw.into is None:
                raise
            raise UnsupportedError(f"{draw.name} fills a tensor that all trials share") from error

    def on_factory(self, name: str, original: Callable[[], Tensor]) -> Tensor:
        """Create a batched tensor if later code fills it with random numbers."""
        result = original()
        return result + self._noise.zero(name).to(result.dtype) if name in self._noise.rows else result

    def on_pass(self, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        """Run a call without dropout, unfused if its kernel has no batching rule."""
        return (call.undropped_row or original)()
