"""Setting the dropout rates of a module, permanently or temporarily: attributes, and a wrapper of steps for calls."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.torch_modules import DropoutBase
from dropsearch.core.errors import InputError, close_match
from dropsearch.core.global_state import changed
from dropsearch.dropout.location import owner_of, owner_path
from dropsearch.dropout.mode import DropoutMode
from dropsearch.dropout.ops import DropCall
from dropsearch.dropout.ops.call import Replaced
from dropsearch.dropout.own_sites import held_rates, own_number
from dropsearch.dropout.rates import checked_rate
from dropsearch.dropout.tools.insert import inserted_dropout
from dropsearch.dropout.unsupported import is_compiled

STEPS = ("forward", "training_step")
"""The methods that start a pass through a module, which the names of sites refer to."""

_DROPPING = (DropoutBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


class RatesSet:
    """The result of `set_rates`. `remove()` or the end of a ``with`` block restores the rates.

    If rates are set several times, remove the settings in reverse order.
    """

    def __init__(self, module: nn.Module, attributes: Mapping[str, _Attribute], called: Mapping[str, float]) -> None:
        self.attributes = {site: attribute.rate for site, attribute in attributes.items()}
        """Rates that are attributes of submodules (``nn.Dropout.p``, ``nn.LSTM.dropout``), by site name."""
        self.calls = dict(called)
        """Rates that a wrapper of the module's forward and ``training_step`` sets, by site name."""
        self._undo: list[Callable[[], Any]] = [attribute.set() for attribute in attributes.values()]
        if called:
            self._undo.append(wrap(module, called))

    def remove(self) -> None:
        """Restore all rates; a second call does nothing."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> RatesSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        """Return a one-line description of the set rates."""
        if not self._undo:
            return "rates restored"
        parts = [f"{site}={rate:g}" for site, rate in self.attributes.items()]
        parts += [f"{site}={rate:g} (call)" for site, rate in self.calls.items()]
        return f"rates set: {', '.join(parts)}"


def set_rates(module: nn.Module, rates: Mapping[str, float]) -> RatesSet:
    """Set the dropout rates of a module's sites, so that it trains with them in any Trainer or loop.

    If the rate is an attribute of a submodule (``nn.Dropout.p``, ``dropout`` of ``nn.LSTM``, ``nn.GRU``, ``nn.RNN`` and
    ``nn.MultiheadAttention``, an inserted dropout), the attribute is set. Other sites are calls: in a forward or
    ``training_step`` (``model``, ``block#2``), or one of several calls of a site in a pass (``drop@2``). A wrapper sets
    the rates of these calls. It adds nothing to ``state_dict`` and is copied and pickled with the module. ::

        set_rates(module, {"drop": 0.2, "model#2": 0.4})  # permanently
        with set_rates(module, {"drop": 0.0}):  # until the block ends
            ...

    Args:
        module: Any ``nn.Module`` or LightningModule.
        rates: Rate in [0, 1] by site name, as listed by `dropout_sites`. If the rate is an attribute, a name without an
            ordinal applies to all drops of the submodule that have no other rate in `rates`.

    Returns:
        An object that restores the rates by ``.remove()`` or at the end of a ``with`` block.

    Raises:
        InputError: A site is unknown, a rate is not in [0, 1], or a site is a call and the module is compiled by
            ``torch.compile``. Nothing is set then.
    """
    if not isinstance(rates, Mapping):
        raise InputError(f'rates must be a rate by site name, got {rates!r}: for example {{"drop": 0.2}}')
    attributes: dict[str, _Attribute] = {}
    called: dict[str, float] = {}
    for site, given in rates.items():
        rate = checked_rate(given, f'rates["{site}"]')
        part = _owner(module, site)
        attribute = _attribute(part, site, rate)
        if attribute is not None:
            attributes[site] = attribute
        elif ":" in site or never_drops(part):
            raise InputError(_unknown(module, site))
        else:
            called[site] = rate
    if called and is_compiled(module):
        raise InputError(
            f"rates of calls ({', '.join(called)}) can only be set on a module that is not compiled, got a compiled "
            f"{type(module).__name__}: do not compile it, or use nn.Dropout there"
        )
    return RatesSet(module, attributes, called)


def _attribute(part: nn.Module, site: str, rate: float) -> _Attribute | None:
    if ":" in site:
        held = next((each for each in held_rates(part) if each.site(owner_of(site)) == site), None)
        return _Attribute(held.holder(part), held.name, rate) if held else None
    return _Attribute.of(part, rate) if owner_of(site) == site else None


class _Attribute:
    def __init__(self, holder: Any, name: str, rate: float) -> None:
        self.holder, self.name, self.rate = holder, name, rate

    @classmethod
    def of(cls, part: nn.Module, rate: float) -> _Attribute | None:
        """Return the attribute, or None if there is none or it does not cover all drops of the submodule."""
        hooks = list(inserted_dropout(part).values())
        has_own = isinstance(part, nn.MultiheadAttention) or drops_between_layers(part)
        if hooks:
            return None if has_own else cls(hooks[0], "rate", rate)
        if isinstance(part, DropoutBase):
            return cls(part, "p", rate)
        name = "dropout" if has_own else own_number(part)
        return cls(part, name, rate) if name else None

    def set(self) -> Callable[[], None]:
        before = getattr(self.holder, self.name)
        setattr(self.holder, self.name, self.rate)
        return functools.partial(setattr, self.holder, self.name, before)


def _owner(module: nn.Module, site: str) -> nn.Module:
    try:
        return module.get_submodule(owner_path(module, site))
    except KeyError:
        raise InputError(_unknown(module, site)) from None


def _unknown(module: nn.Module, site: str) -> str:
    parts = {name: part for name, part in module.named_modules() if name}
    known = [name for name, part in parts.items() if _Attribute.of(part, 0.0) or not never_drops(part)]
    why = ""
    part = parts.get(site)
    if isinstance(part, nn.RNNBase):
        why = f": {type(part).__name__} of one layer has no dropout between layers"
    elif part is not None:
        why = f': {type(part).__name__} does not drop; insert_dropout(module, "{site}") inserts dropout after it'
    return (
        f'rates must name dropout sites of {type(module).__name__}, got "{site}"{close_match(site, ["model", *known])}'
        f"{why or ': dropout_sites(module, batch) lists them'}"
    )


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
