"""A wrapper of a module's steps that changes the rates of some dropout calls."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.torch_modules import DropoutBase
from dropsearch.core.global_state import changed
from dropsearch.dropout.mode import DropoutMode
from dropsearch.dropout.ops import DropCall
from dropsearch.dropout.ops.call import Replaced
from dropsearch.dropout.tools.insert import inserted_dropout

STEPS = ("forward", "training_step")
"""The methods that start a pass through a module, which the names of sites refer to."""

_DROPPING = (DropoutBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def never_drops(part: nn.Module) -> bool:
    """Return whether a submodule is a PyTorch layer without visible dropout calls (subclasses may have some)."""
    own = type(part).__module__.startswith("torch.nn.modules.")
    drops = isinstance(part, _DROPPING) or drops_between_layers(part)
    return own and not drops and not inserted_dropout(part)


def drops_between_layers(part: nn.Module) -> bool:
    """Return whether a submodule is a recurrent network of several layers, which drops between them."""
    return isinstance(part, nn.RNNBase) and part.num_layers > 1


class RateMode(DropoutMode):
    """Sets the rate of each named call and lets PyTorch drop."""

    def __init__(self, model: nn.Module, rates: Mapping[str, float]) -> None:
        super().__init__(model)
        self.rates = rates
        self.met: set[str] = set()

    def on_drop(self, site: str, call: DropCall, original: Callable[..., Tensor]) -> Tensor:
        """Run the call, at its rate if it has one."""
        rate = self.on_own(site, call.rate)
        return original(rate) if isinstance(rate, Replaced) else original()

    def on_own(self, site: str, rate: float) -> float:
        """Return the rate of a named call."""
        name = self.location.last_call if self.location.last_call in self.rates else site
        if name not in self.rates:
            return rate
        self.met.add(name)
        return Replaced(self.rates[name], rate)


class _Setting:
    """The rates that the wrapped steps of one module share."""

    def __init__(self, module: nn.Module, rates: Mapping[str, float]) -> None:
        self.module = module
        self.rates = dict(rates)
        self.is_running = False
        self.is_checked = False

    def run(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a step with the rates set, unless it is a forward inside a running step."""
        if self.is_running or not self.rates:
            return step(*args, **kwargs)
        mode = RateMode(self.module, self.rates)
        with changed(self, is_running=True), mode.watching(), mode.step():
            result = step(*args, **kwargs)
        if self.module.training and not self.is_checked:
            self.is_checked = True
            self._warn_of(set(self.rates) - mode.met)
        return result

    def _warn_of(self, missed: set[str]) -> None:
        if missed:
            warnings.warn(
                f"set_rates: the first training pass of {type(self.module).__name__} found no dropout site named "
                f"{', '.join(sorted(missed))}; dropout_sites(module, batch) lists its sites",
                stacklevel=4,
            )


class _Wrapped:
    """A step of a module with changed rates of some calls.

    It is a plain object, so that copies and pickles of the module contain their own.
    """

    def __init__(self, step: Callable[..., Any], setting: _Setting) -> None:
        self.__wrapped__ = step  # Lightning reads the signature, and asks whether the step is overridden
        self.setting = setting

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step."""
        return self.setting.run(self.__wrapped__, *args, **kwargs)


def wrap(module: nn.Module, rates: Mapping[str, float]) -> Callable[[], None]:
    """Wrap ``forward`` and ``training_step`` of a module, on the object; return a function that unwraps them.

    Rates are by site name; ``drop@2`` is the second call of a site in a pass.
    """
    setting = _Setting(module, rates)
    names = [name for name in STEPS if hasattr(module, name)]
    before = {name: vars(module)[name] for name in names if name in vars(module)}
    wrapped = {name: _Wrapped(getattr(module, name), setting) for name in names}
    vars(module).update(wrapped)

    def undo() -> None:
        setting.rates.clear()  # suffices if another wrapper is around this one
        for name, wrapper in wrapped.items():
            if vars(module).get(name) is wrapper:
                del vars(module)[name]
                vars(module).update({name: before[name]} if name in before else {})

    return undo
