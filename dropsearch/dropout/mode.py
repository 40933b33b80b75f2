"""One mechanism for every dropout call of a model.

A `TorchFunctionMode` sees each dropout function that a forward pass calls, from an `nn.Dropout` or from a functional
call in a `forward`. It names the site, and then records it (inventory) or sets its rate (training). The module is not
changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dropsearch._compat.python_calls import Call, showing
from dropsearch._compat.torch_modes import backward, is_active, recomputed_by
from dropsearch._compat.torch_modules import named_parts
from dropsearch.dropout.keyed_draws import FACTORIES, Draw, can_draw, read_draw
from dropsearch.dropout.location import ModuleLocation
from dropsearch.dropout.ops import DropCall, op_of, read_call
from dropsearch.dropout.ops.attention import exposed_attention
from dropsearch.dropout.own_sites import HeldRate, Scope, functions_of, held_rates, replaced


def _ignore(*_: Any) -> None:
    """Replacement of a hook in copies and files."""


class Hook:
    """A hook on a watched module; copies and pickles of the module contain an empty one."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def __call__(self, *_: Any) -> None:
        """Record that the module is entered or left."""
        self._call()

    def __reduce__(self) -> Any:
        """Exclude the control and its model from copies and checkpoints."""
        return Hook, (_ignore,)


class DropoutMode(TorchFunctionMode, ABC):
    """Sees every dropout call of a model inside `step()`. Subclasses define what happens with a call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self.location = ModuleLocation(model)
        self._attention = exposed_attention(self._inner_call)
        self._held: dict[str, tuple[HeldRate, ...]] = {}
        self._functions: dict[FunctionType, str] = {}
        self._scopes: list[Scope] = []
        self.sees_factories = False
        """Whether it sees calls that create a tensor, which later code may fill with random numbers."""
        self.called: set[Any] = set()
        """The functions that dropped or drew."""
        self.keys_draws = False
        """Whether `on_keyed` draws all random numbers; otherwise only those of operations with their own code."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow operations with their own dropout code; required around `step()`."""
        held = ((name, module, held_rates(module)) for name, module in named_parts(self._model))
        followed = {name: (module, rates) for name, module, rates in held if rates}
        self._held = {name: rates for name, (_, rates) in followed.items()}
        self._functions = functions_of(self._model)
        with ExitStack() as stack:
            for name, (module, _) in followed.items():
                stack.callback(module.register_forward_pre_hook(Hook(partial(self._enter, name, module))).remove)
                stack.callback(module.register_forward_hook(Hook(self._leave), always_call=True).remove)
            stack.enter_context(recomputed_by(self._recomputation))
            stack.enter_context(showing(self._functions))
            yield

    @contextmanager
    def step(self) -> Iterator[None]:
        """See the drops of one training step or forward pass; only inside `watching()`."""
        self.restart()
        with self.seeing():
            yield

    def restart(self) -> None:
        """Start a pass at the root of the model."""
        while self._scopes:  # left over from a failed pass
            self._scopes.pop().leave()
        self.location.restart()

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """Enable the mode while the context lasts, unless it is already enabled."""
        if is_active(self):
            yield
            return
        with self:
            yield

    def remembered(self) -> Callable[[], AbstractContextManager[None]]:
        """Remember the current position of the pass; return a factory of contexts that restore it."""
        there, scopes = self.location.remembered(), list(self._scopes)

        @contextmanager
        def again() -> Iterator[None]:
            now, self._scopes = self._scopes, list(scopes)
            for scope in scopes:
                scope.enter()
            try:
                with there():
                    yield
            finally:
                for scope in reversed(scopes):
                    scope.leave()
                self._scopes = now

        return again

    def _recomputation(self) -> Callable[[], AbstractContextManager[None]]:
        """Return a factory of contexts for a part of the forward that starts here and is recomputed in the backward."""
        again = self.remembered()

        @contextmanager
        def recomputing() -> Iterator[None]:
            with again(), self.seeing():
                yield

        return recomputing

    @abstractmethod
    def on_drop(self, site: str, call: DropCall, original: Callable[..., Tensor]) -> Tensor:
        """Return the result of a dropping call; `original` runs the call unchanged or at a given rate."""

    def on_pass(self, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        """Return the result of a call in eval mode; `original` runs it unchanged."""
        return original()

    def on_own(self, site: str, rate: float) -> float:
        """Return the rate for an operation with its own dropout code, given its present rate."""
        return rate

    def on_keyed(self, name: str, draw: Draw, original: Callable[[], Any]) -> Any:
        """Return the result of a call that draws random numbers; its name is unique in a pass."""
        return original()

    def on_factory(self, name: str, original: Callable[[], Tensor]) -> Tensor:
        """Return the result of a call that creates a tensor, if the mode sees these; `name` is as in `on_keyed`."""
        return original()

    def names_in_own_code(self, code: Any) -> list[tuple[Any, str, Any, Any]]:
        """Return what a class or function with its own dropout code finds under other names, as in `Scope.numbers`."""
        return []

    def in_own_code(self, scope: Scope, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the result of a call inside an operation with its own dropout code."""
        return self._undropped(func, args, kwargs, scope)

    def python_call(self, function: FunctionType, run: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a plain function with its own dropout code at the rate of its site."""
        rate = self._functions.get(function)
        if rate is None:
            return run(*args, **kwargs)
        site = self.location.name_drop()
        args, kwargs = replaced(function, rate, args, kwargs, partial(self.on_own, site))
        scope = Scope(site, self.location.depth, self.names_in_own_code(function))
        scope.enter()
        self._scopes.append(scope)
        try:
            return run(*args, **kwargs)
        finally:
            self._scopes.pop().leave()

    def _enter(self, path: str, module: nn.Module) -> None:
        held = self._held.get(path)
        if held is None:
            return
        scope = Scope(held[0].site(path), self.location.depth, self.names_in_own_code(type(module)))
        for each in held:
            now = self.on_own(each.site(path), each.rate(module))
            scope.numbers.append((each.holder(module), each.name, each.rate(module), now))
        scope.enter()
        self._scopes.append(scope)

    def _leave(self) -> None:
        while self._scopes and self._scopes[-1].depth >= self.location.depth:
            self._scopes.pop().leave()

    @property
    def scope(self) -> Scope | None:
        """The running operation with its own dropout code, if any."""
        scope = self._scopes[-1] if self._scopes else None
        return scope if scope is not None and scope.depth == self.location.depth else None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self._scopes and not _concerns(func):
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._attention(*args, **kwargs)
        if func is Tensor.backward:
            with self.seeing():  # a mode is disabled while it handles a call, but a backward may recompute forwards
                return backward(*args, **kwargs)
        call = read_call(func, args, kwargs)
        if call is None:
            scope = self.scope if self._scopes else None
            return self._undropped(func, args, kwargs) if scope is None else self.in_own_code(scope, func, args, kwargs)
        self.called.add(func)
        if self.location.module.training if call.training is None else call.training:
            return self.on_drop(self.location.name_drop(), call, partial(_made_again, func, args, kwargs))
        self.location.name_drop(passes=True)
        return self.on_pass(call, lambda: func(*args, **kwargs))

    def _undropped(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], scope: Scope | None = None
    ) -> Any:
        if not self.keys_draws and scope is None:
            return func(*args, **kwargs)
        place = self.location.path or "model" if scope is None else scope.site
        if (draw := read_draw(func, args, kwargs)) is not None:
            self.called.add(func)
            return self.on_keyed(self.location.counted(f"{place}~{draw.name}"), draw, lambda: func(*args, **kwargs))
        if self.sees_factories and getattr(func, "__name__", "") in FACTORIES:
            return self.on_factory(self.location.counted(f"{place}~{func.__name__}"), lambda: func(*args, **kwargs))
        return func(*args, **kwargs)

    def _inner_call(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        return self.__torch_function__(func, (), args, kwargs)


def _concerns(func: Any) -> bool:
    """Return whether a mode must handle a function: it drops, draws, or creates a tensor."""
    try:
        known = _known.get(func)
    except TypeError:  # not hashable
        return True
    if known is None:
        name = getattr(func, "__name__", "")
        whole = func is F.multi_head_attention_forward or func is Tensor.backward or op_of(func) is not None
        known = whole or can_draw(name) or name in FACTORIES
        if str(getattr(func, "__module__", None) or "torch").partition(".")[0] == "torch":
            _known[func] = known
    return known


_known: dict[Any, bool] = {}
"""Cache of `_concerns` for functions of PyTorch."""


def _made_again(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], rate: float | None = None) -> Any:
    """Repeat a call with the original function, so that an outer control also sees it."""
    op = op_of(func)
    if rate is not None and op is not None:
        args, kwargs = op.at_rate(args, kwargs, rate)
    return func(*args, **kwargs)
