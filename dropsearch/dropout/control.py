"""One mechanism for every dropout call of a model.

A `TorchFunctionMode` sees each dropout function that a forward pass calls, from an `nn.Dropout` or from a
bare functional call in somebody's `forward`. It names the place, and then notes it (the inventory) or sets
its rate (training). The module is not touched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dropsearch.dropout.ops import DropCall, at_rate, exposed_attention, read_call
from dropsearch.dropout.rates import Rate
from dropsearch.dropout.seeded_bits import SeededNoise


def owner_path(model: nn.Module, site: str) -> str:
    """Return the path of the module that has a site of this name; empty for the model itself.

    Raises:
        KeyError: The model has no such part.
    """
    path = site.partition("#")[0].partition(":")[0]
    paths = {name for name, _ in model.named_modules(remove_duplicate=False)}
    if path in paths:
        return path
    if path == "model":
        return ""
    raise KeyError(path)


class ModuleLocation:
    """Which module of a model runs right now, and how often it has dropped in this step."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._path: list[tuple[str, nn.Module]] = [("", model)]
        self._drops: Counter[str] = Counter()

    @contextmanager
    def followed(self, sites: Iterable[str] | None = None) -> Iterator[None]:
        """Follow the model's forward passes while the context lasts.

        Args:
            sites: Where it is known which sites there are: only the modules that have one are followed.
        """
        owners = None if sites is None else {site.partition("#")[0] for site in sites}
        with ExitStack() as hooks:
            for name, module in self._model.named_modules():
                # What TorchScript compiled takes no hooks and shows no calls.
                if (owners is None or name in owners) and not isinstance(module, torch.jit.ScriptModule):
                    hooks.enter_context(self._hooked(name, module))
            yield

    @contextmanager
    def _hooked(self, name: str, module: nn.Module) -> Iterator[None]:
        entered = module.register_forward_pre_hook(lambda *_: self._path.append((name, module)))
        left = module.register_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            entered.remove()
            left.remove()

    def _leave(self, *_: Any) -> None:
        self._path.pop()

    def restart(self) -> None:
        """Forget the drops counted so far: a new step begins at the root of the model."""
        del self._path[1:]
        self._drops.clear()

    @property
    def module(self) -> nn.Module:
        """The module whose forward runs."""
        return self._path[-1][1]

    @property
    def path(self) -> str:
        """The path of that module; empty for the model itself."""
        return self._path[-1][0]

    @property
    def in_forward(self) -> bool:
        """Whether any module's forward runs."""
        return len(self._path) > 1

    @property
    def last_drop(self) -> str:
        """The name that the last drop of the module whose forward runs was given."""
        path = self._path[-1][0] or "model"
        return path if self._drops[path] == 1 else f"{path}#{self._drops[path]}"

    def name_drop(self) -> str:
        """Name the site of the drop that happens now: the module's path, with ``#2`` from the second on."""
        self._drops[self._path[-1][0] or "model"] += 1
        return self.last_drop


class DropoutMode(TorchFunctionMode, ABC):
    """Sees every dropout call of a model inside `step()`. What is done with a call is the subclass's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.whereabouts = ModuleLocation(model)
        self._attention = exposed_attention(self._inner_call)

    def watching(self, sites: Iterable[str] | None = None) -> AbstractContextManager[None]:
        """Follow the model's modules while the context lasts: what `step()` needs around it.

        Args:
            sites: All places that call a dropout function, where that is known: following only those takes less time.
        """
        return self.whereabouts.followed(sites)

    @contextmanager
    def step(self) -> Iterator[None]:
        """See the drops of one training step, or of one forward pass; inside `watching()`."""
        self.whereabouts.restart()
        with self:
            yield

    @abstractmethod
    def on_drop(self, site: str, call: DropCall, original: Callable[..., Tensor]) -> Tensor:
        """Return what a call that drops is to return; `original` runs it as it was made, or at the rate it is given."""

    def on_pass(self, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        """Return what a call in eval mode is to return; `original` runs it as it was made."""
        return original()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            return self._attention(*args, **kwargs)
        call = read_call(func, args, kwargs)
        if call is None:
            return func(*args, **kwargs)
        site = self.whereabouts.name_drop()
        if self._drops(call):
            return self.on_drop(site, call, partial(_made_again, func, args, kwargs))
        return self.on_pass(call, lambda: func(*args, **kwargs))

    def _inner_call(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        return self.__torch_function__(func, (), args, kwargs)

    def _drops(self, call: DropCall) -> bool:
        return self.whereabouts.module.training if call.training is None else call.training


def _made_again(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], rate: float | None = None) -> Any:
    """Make a call again by its own function, so that a control around this one sees it too."""
    if rate is not None:
        args, kwargs = at_rate(func, args, kwargs, rate)
    return func(*args, **kwargs)


class Noise(Protocol):
    """Where the random bits of masks come from."""

    def bits(self, site: str, shape: torch.Size, device: torch.device) -> Tensor:
        """Return int16 bits of `shape`, uniform over all int16 values."""
        ...


class DropoutControl(DropoutMode):
    """Applies given rates at every dropout call of a model, with masks from `noise`.

    Args:
        model: The module whose `forward` or `training_step` runs inside `step()` (inside `watching()`).
        rates: Rate by site name. A site that is not named keeps the rate that the module gives it.
        noise: Source of the masks' random bits.
    """

    def __init__(self, model: nn.Module, rates: Mapping[str, Rate], noise: Noise) -> None:
        super().__init__(model)
        self.rates = dict(rates)
        self.noise = noise

    def on_drop(self, site: str, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        """Drop at the site's rate."""
        rate = self.rates.get(site)
        if rate is None:
            rate = Rate.of(call.rate)
        if isinstance(rate.value, float | int) and rate.value == 0:
            return self.on_pass(call, lambda: _undropped(call))
        return call.drop(rate, lambda shape, x: self.noise.bits(site, shape, x.device))


def _undropped(call: DropCall) -> Tensor:
    if call.form == "attention":
        return F.scaled_dot_product_attention(**dict(call.attention or {}))
    return call.input


class TrialControl(DropoutControl):
    """The control of one trial: its own rates, and masks that are functions of its seed, site and step."""

    def __init__(self, model: nn.Module, rates: Mapping[str, float], seed: int) -> None:
        self.seeded = SeededNoise(seed)
        super().__init__(model, {site: Rate.of(rate) for site, rate in rates.items()}, self.seeded)

    @contextmanager
    def training_step(self, step: int) -> Iterator[None]:
        """Control the training step number `step`, counted from 0."""
        self.seeded.step = step
        with self.step():
            yield
