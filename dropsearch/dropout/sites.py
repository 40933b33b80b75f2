"""The inventory of a model's dropout sites."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropsearch._compat.python_calls import Call
from dropsearch._compat.torch_modes import as_it_is_written
from dropsearch._compat.torch_modules import DropoutBase
from dropsearch.core.global_state import changed
from dropsearch.core.records import Site
from dropsearch.dropout import unsupported
from dropsearch.dropout.keyed_draws import Draw
from dropsearch.dropout.mode import DropoutMode
from dropsearch.dropout.ops import DropCall, own_code
from dropsearch.dropout.own_sites import OwnSites, held_rates, own_number, without_rate
from dropsearch.dropout.site_kinds import KindInference, guess_kind, layer_kind


class _Recorder(DropoutMode):
    """Records each drop with its module; all calls run unchanged."""

    def __init__(self, model: nn.Module, examples: int | None, per_call: Collection[str]) -> None:
        super().__init__(model)
        self.per_call = per_call
        self.model = model
        self.examples = examples
        self.met: dict[str, int] = {}
        """Time of each site and of the first call of each module, for the order of the forward pass."""
        self.sites: dict[str, Site] = {}
        self._kinds = KindInference(model, self.sites)
        self._clock = itertools.count()
        self._in_attention = False
        self._own = OwnSites()
        self._uniform = unsupported.UniformDraws(self._add)
        self._lent: set[str] = set()
        """Dropout layers that are not called, but store the rate for a call of their parent module."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record which modules run; used with `watching()`."""
        with ExitStack() as hooks:
            for name, module in self.model.named_modules():
                if isinstance(module, torch.jit.ScriptModule):
                    continue
                if isinstance(module, DropoutBase):
                    # An equal but unique number, by which a call of its parent module with this rate is recognized.
                    hooks.enter_context(changed(module, p=float(module.p) + 0.0))
                hooks.callback(module.register_forward_pre_hook(partial(self._note_time, f"{name} called")).remove)
                if any(held.is_whole for held in held_rates(module)):
                    hooks.callback(module.register_forward_hook(self._on_own_module(name)).remove)
                if kind := layer_kind(module):
                    hooks.callback(module.register_forward_hook(self._on_layer(name, kind)).remove)
            yield

    def _on_layer(self, name: str, kind: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            self._kinds.last_layer = kind
            if isinstance(module, nn.RNNBase) and module.dropout > 0 and module.num_layers == 1:
                # An inserted dropout after the layer has the layer's name.
                free = name or "model" if (name or "model") not in self.sites else f"{name}:dropout"
                self._add(Site(free, "rnn", float(module.dropout), 0, False, unsupported.ONE_LAYER))

        return hook

    def on_drop(self, site: str, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        self._note_lent(call)
        name = self._name(site)
        seen = self._site(name, call)
        again = self.sites.get(name)
        self._add(seen)
        if again is not None:
            self.sites[name] = replace(again, activations=again.activations + seen.activations)
        result = original()
        is_certain = self._is_of_weights(call) or bool(call.op.kind)
        self._kinds.drop(name, result, lambda: self._site(name, call, added=True).kind, is_certain=is_certain)
        return result

    def _name(self, site: str) -> str:
        """Return the site's name for all its calls, or the name of the call if calls have separate rates."""
        chosen = any(fnmatchcase(site, pattern) for pattern in self.per_call)
        return self.location.last_call if chosen else site

    def on_pass(self, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        """Record a place that does not drop because a part of the model stays in eval mode."""
        self._note_lent(call)
        if self.model.training:
            seen = self._site(self._name(self.location.last_drop), call)
            self._add(Site(seen.name, seen.kind, seen.rate, seen.activations, False, unsupported.STAYS_IN_EVAL))
        return original()

    def _site(self, name: str, call: DropCall, added: bool = False) -> Site:
        # A drop inside a layer is after the layer's weights: it was inserted by a hook.
        before = layer_kind(self.location.module) or self._kinds.last_layer
        weights, flat = self._is_of_weights(call), call.input.dim() == 2
        kind = call.op.kind or guess_kind(name, before, weights=weights, added=added, flat=flat)
        return Site(name, kind, float(call.rate), self._each(math.prod(call.mask_shape), call.input))

    def _note_lent(self, call: DropCall) -> None:
        written = getattr(call.rate, "written", call.rate)
        for name, part in self.location.module.named_modules():
            if isinstance(part, DropoutBase) and part.p is written:
                self._lent.add(f"{self.location.path}.{name}".strip("."))

    def _is_of_weights(self, call: DropCall) -> bool:
        """Return whether attention weights are dropped."""
        return call.op.kind == "attention" or self._kinds.is_softmaxed(call.input) or self._in_attention

    def _each(self, count: int, x: Tensor | None = None) -> int:
        """Return the number of activations per example, of `count` in total."""
        if self.examples and count % self.examples == 0:
            return count // self.examples
        return count // x.shape[0] if x is not None and x.dim() > 1 and x.shape[0] else count

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        before = self._kinds.last_drop
        result = super().__torch_function__(func, types, args, kwargs)
        if self._kinds.last_drop is before:  # this call did not drop
            self._kinds.see(func, args, result, in_own_code=self._is_in_own_code)
        if (draw := unsupported.draw(func)) and self.scope is None:
            self._on_draw(draw, result, [*args, *(kwargs or {}).values()])
        self._uniform.see(func, args, result)
        return result

    def _is_in_own_code(self) -> bool:
        return self.scope is not None or own_code.family_of(type(self.location.module)) is not None

    def _inner_call(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        with changed(self, _in_attention=True):
            return super()._inner_call(func, *args, **kwargs)

    def on_own(self, site: str, rate: float) -> float:
        self._note_time(site)
        self._own.met(site, rate)
        return rate

    def on_keyed(self, name: str, draw: Draw, original: Callable[[], Any]) -> Any:
        result = original()
        if self.scope is not None:
            self._own.drew(self.scope.site, self._each(_count(result), result))
        return result

    def python_call(self, function: FunctionType, run: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known = own_code.of_function(function)

        def noted(*args: Any, **kwargs: Any) -> Any:
            site, before = self._scopes[-1].site, self._kinds.last_layer
            self._own.known(site, known[0] if known else own_code.family_of(type(self.location.module)), before)
            result = run(*args, **kwargs)
            self._note_own(site, result)
            return result

        return super().python_call(function, noted if function in self._functions else run, args, kwargs)

    def _on_own_module(self, name: str) -> Callable[..., None]:
        return lambda module, _, output: self._note_own(name or "model", output)

    def _enter(self, path: str, module: nn.Module) -> None:
        for held in self._held.get(path, ()):
            self._own.known(held.site(path), held.op, self._kinds.last_layer, is_part=not held.is_whole)
        super()._enter(path, module)

    def _note_own(self, site: str, result: Any) -> None:
        """Record the result of an operation with its own code, to detect whether it is added to other activations."""
        if isinstance(result, Tensor) and self._own.is_listed(site):
            before = self._kinds.last_layer
            self.sites[site] = self._own.site(site)
            if not self._own.kind_known(site):
                self._kinds.drop(site, result, lambda: guess_kind(site, before, added=True))

    def _on_draw(self, function: str, result: Any, given: list[Any]) -> None:
        if unsupported.is_sampling(function, given):
            return
        owner = self.location.path or "model"
        count = self._each(_count(result), result if isinstance(result, Tensor) else None)
        reason = unsupported.draw_reason(function, type(self.location.module).__name__)
        site = Site(f"{owner}:{function}", guess_kind(owner, self._kinds.last_layer), math.nan, count, False, reason)
        if function in unsupported.UNIFORM:
            self._uniform.note(result, site)
        else:
            self._add(site)

    def _add(self, site: Site) -> None:
        self._note_time(site.name)
        self.sites.setdefault(site.name, site)

    def _note_time(self, what: str, *_: Any) -> None:
        self.met.setdefault(what, next(self._clock))

    def found(self) -> tuple[Site, ...]:
        """Return all sites in the order of the pass; sites that it did not reach are last."""
        for name, module in self.model.named_modules():
            self._complete(name, module)
        for site in self._own.found():
            kind = self.sites[site.name].kind if site.name in self.sites else site.kind
            self.sites[site.name] = replace(site, kind=kind)
        last = len(self.met)
        return tuple(sorted(self.sites.values(), key=lambda site: self.met.get(site.name, last)))

    def _complete(self, name: str, module: nn.Module) -> None:
        """Add a module that was not called, or that is random in an unknown way."""
        site, called = name or "model", self.met.get(f"{name} called")
        drawn = [key for key in self.sites if key.startswith(f"{site}:")]
        if drawn and site not in self.sites and (reason := without_rate(module)):
            self.sites[site] = replace(self.sites.pop(drawn[0]), name=site, reason=reason)
            self.met[site] = self.met[drawn[0]]
        elif isinstance(module, torch.jit.ScriptModule):
            outer = dict(self.model.named_modules())[name.rpartition(".")[0]]
            if not name or not isinstance(outer, torch.jit.ScriptModule):
                self.sites[site] = Site(site, "hidden", math.nan, 0, False, unsupported.SCRIPTED)
        elif called is None and (rate := _idle_rate(module)) is not None and name not in self._lent:
            op = own_code.family_of(type(module))
            kind = "rnn" if isinstance(module, nn.RNNBase) else (op.kind if op else "") or guess_kind(site, "hidden")
            self.sites[site] = Site(site, kind, rate, 0, False, unsupported.UNMET)


def _idle_rate(module: nn.Module) -> float | None:
    """Return the rate of a module that drops when called, or None."""
    if isinstance(module, DropoutBase):
        return float(module.p)
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention) and module.dropout > 0:
        return float(module.dropout)
    name = own_number(module)
    return float(vars(module)[name]) if name else None


def _count(output: Any) -> int:
    if isinstance(output, tuple) and not isinstance(output, PackedSequence):
        return _count(output[0]) if output else 0
    data = output.data if isinstance(output, PackedSequence) else output
    return data.numel() if isinstance(data, Tensor) else 0


def dropout_sites(
    model: nn.Module,
    run: Callable[[], Any],
    *,
    examples: int | None = None,
    per_call: Collection[str] = (),
) -> tuple[Site, ...]:
    """Return the sites of a model in the order of one training pass.

    Args:
        model: The model in training mode; in eval mode no site is found.
        run: Runs one training step or forward pass of the model.
        examples: Batch size of `run`, to count activations per example; by default the first dimension of dropped
            activations.
        per_call: Names or patterns of sites with separate calls: ``drop``, ``drop@2`` and so on are then sites.

    Returns:
        One `Site` per place in the code of a module. A place that is called several times is one site with the
        activations of all calls. Randomness that the control cannot reach (such as ``bernoulli_`` in a forward) and
        dropouts that this pass did not call are listed as not controllable, with the reason.
    """
    recorder = _Recorder(model, examples, per_call)
    with as_it_is_written(), recorder.watching(), recorder.listening(), recorder.step():
        run()
    return recorder.found() if model.training else ()
