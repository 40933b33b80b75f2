"""The current position of a forward pass in a model, and the name of the site there."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import nn

from dropsearch._compat.torch_modules import FORWARD, named_parts
from dropsearch.core.global_state import changed
from dropsearch.dropout.places import CallReader, Places


def owner_of(site: str) -> str:
    """Return the module part of a site's name."""
    return site.partition("@")[0].partition("#")[0].partition(":")[0]


def owner_path(model: nn.Module, site: str) -> str:
    """Return the path of the module of a site, empty for the model itself; raise KeyError if there is none."""
    path = owner_of(site)
    paths = {name for name, _ in model.named_modules(remove_duplicate=False)}
    if path in paths:
        return path
    if path == "model":
        return ""
    raise KeyError(path)


def per_call(site: str, call: int) -> str:
    """Return the name of a site's call in a pass: that of the site for the first call, then ``drop@2``."""
    return site if call == 1 else f"{site}@{call}"


class ModuleLocation:
    """The running module of a model, the site that drops there, and its number of calls in this pass.

    Running modules are read from the stack of Python frames on demand, so that other calls have no overhead.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._known: dict[int, tuple[str, nn.Module]] = {}
        """Each module of the model with its path, by identity."""
        self._strange: dict[int, nn.Module] = {}
        """Running modules that are not part of the model, by identity."""
        self._outer: list[tuple[str, nn.Module]] = [("", model)]
        """The modules around a part that is recomputed in the backward pass."""
        self._calls: Counter[str] = Counter()
        self._places: dict[str, Places] = {}
        self._reader = CallReader()
        self.last_drop = "model"
        """Name of the last site that dropped."""
        self.call = 0
        """Number of that site's call in this pass, from 1."""

    def restart(self) -> None:
        """Reset the counts of calls for a new pass."""
        del self._outer[1:]
        self._calls.clear()
        self._strange.clear()

    def _running(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the running modules with their paths, innermost first."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is FORWARD and (found := self._named(frame.f_locals["self"])):
                yield found
            frame = frame.f_back

    @property
    def _path(self) -> list[tuple[str, nn.Module]]:
        return [*self._outer, *reversed([*self._running()])]

    @property
    def _innermost(self) -> tuple[str, nn.Module]:
        return next(self._running(), self._outer[-1])

    def _named(self, module: nn.Module) -> tuple[str, nn.Module] | None:
        """Return a module with its path, or None if it is not part of the model."""
        found = self._known.get(id(module))
        if found is None and id(module) not in self._strange:
            # Hooks of the Trainer may build layers. TorchScript code shows no calls.
            parts = named_parts(self._model)
            self._known = {id(m): (name, m) for name, m in parts if not isinstance(m, torch.jit.ScriptModule)}
            found = self._known.get(id(module))
            if found is None:
                self._strange[id(module)] = module
        return found

    def remembered(self) -> Callable[[], Any]:
        """Remember the current position; return a factory of contexts that restore it."""
        path, calls = self._path, Counter(self._calls)
        return lambda: changed(self, _outer=list(path), _calls=Counter(calls), last_drop=self.last_drop, call=self.call)

    @property
    def module(self) -> nn.Module:
        """The running module."""
        return self._innermost[1]

    @property
    def path(self) -> str:
        """The path of the running module; empty for the model itself."""
        return self._innermost[0]

    @property
    def depth(self) -> int:
        """Number of nested running modules, including the model itself."""
        return len(self._path)

    def counts(self) -> Counter[str]:
        """Return how often each name has occurred in this pass."""
        return Counter(self._calls)

    def count_from(self, counts: Counter[str]) -> None:
        """Go on from earlier counts."""
        self._calls = Counter(counts)

    def counted(self, name: str) -> str:
        """Return a name with the number of its occurrence in this pass."""
        self._calls[name] += 1
        return name if self._calls[name] == 1 else f"{name}~{self._calls[name]}"

    @property
    def last_call(self) -> str:
        """Name of the last call: the site's name, with ``@2`` for its second call in the pass."""
        return per_call(self.last_drop, self.call)

    def name_drop(self, *, passes: bool = False) -> str:
        """Return the name of the site of the current call, which is counted unless it `passes`, as in eval mode.

        A site is a place in the code of a module. Its name is the module's path, with ``#2`` for the second place.
        Repeated calls of a place are the same site.
        """
        path, module = self._innermost
        places = self._places.get(path)
        if places is None:
            places = self._places[path] = Places(module)
        number = places.number(self._reader.place(module))
        self.last_drop = (path or "model") if number == 1 else f"{path or 'model'}#{number}"
        self._calls[self.last_drop] += not passes
        self.call = self._calls[self.last_drop] or 1
        return self.last_drop
