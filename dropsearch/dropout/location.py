"""Where in a model a forward pass is, and the name of the site that drops there."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn

from dropsearch._compat.torch_modules import FORWARD
from dropsearch.dropout.places import CallReader, Places


def owner_of(site: str) -> str:
    """Return the part of a site's name that names its module."""
    return site.partition("@")[0].partition("#")[0].partition(":")[0]


def owner_path(model: nn.Module, site: str) -> str:
    """Return the path of the module that has a site of this name; empty for the model itself.

    Raises:
        KeyError: The model has no such part.
    """
    path = owner_of(site)
    paths = {name for name, _ in model.named_modules(remove_duplicate=False)}
    if path in paths:
        return path
    if path == "model":
        return ""
    raise KeyError(path)


def per_call(site: str, call: int) -> str:
    """Return the name of one call of a site in a pass: the site's own for the first, then ``drop@2``."""
    return site if call == 1 else f"{site}@{call}"


class ModuleLocation:
    """Which module of a model runs right now, which site drops there, and how often it has in this pass.

    The modules whose forwards run are read from the stack of Python frames where something asks for them, which is
    seldom: nothing happens in the calls between.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._known: dict[int, tuple[str, nn.Module]] = {}
        """Each module of the model with its path, by identity."""
        self._strange: dict[int, nn.Module] = {}
        """Modules that run and are no part of the model, by identity."""
        self._outer: list[tuple[str, nn.Module]] = [("", model)]
        """The modules around what is computed again in a backward."""
        self._calls: Counter[str] = Counter()
        self._places: dict[str, Places] = {}
        self._reader = CallReader()
        self.last_drop = "model"
        """The name of the site that dropped last."""
        self.call = 0
        """Which call of that site in this pass it was, counted from 1."""

    def restart(self) -> None:
        """Forget the calls counted so far: a new pass begins at the root of the model."""
        del self._outer[1:]
        self._calls.clear()
        self._strange.clear()

    @property
    def _path(self) -> list[tuple[str, nn.Module]]:
        """The modules whose forwards run, the outermost first, with their paths."""
        running: list[tuple[str, nn.Module]] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is FORWARD and (found := self._named(frame.f_locals["self"])):
                running.append(found)
            frame = frame.f_back
        return [*self._outer, *reversed(running)]

    @property
    def _innermost(self) -> tuple[str, nn.Module]:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is FORWARD and (found := self._named(frame.f_locals["self"])):
                return found
            frame = frame.f_back
        return self._outer[-1]

    def _named(self, module: nn.Module) -> tuple[str, nn.Module] | None:
        """Return a module with its path; None for one that is no part of the model."""
        found = self._known.get(id(module))
        if found is None and id(module) not in self._strange:
            # Some build layers in hooks of the Trainer. What TorchScript compiled shows no calls.
            named = ((name, each) for name, each in self._model.named_modules() if not _is_compiled(each))
            self._known = {id(each): (name, each) for name, each in named}
            found = self._known.get(id(module))
            if found is None:
                self._strange[id(module)] = module
        return found

    def remembered(self) -> Callable[[], Any]:
        """Remember this point of the pass; return a context in which it is this point again."""
        path, calls = self._path, Counter(self._calls)

        @contextmanager
        def again() -> Iterator[None]:
            now = self._outer, Counter(self._calls), self.last_drop, self.call
            self._outer, self._calls = list(path), Counter(calls)
            try:
                yield
            finally:
                self._outer, self._calls, self.last_drop, self.call = now

        return again

    @property
    def module(self) -> nn.Module:
        """The module whose forward runs."""
        return self._innermost[1]

    @property
    def path(self) -> str:
        """The path of that module; empty for the model itself."""
        return self._innermost[0]

    @property
    def depth(self) -> int:
        """How many modules' forwards run, one inside the other, with the model itself."""
        return len(self._path)

    def counted(self, name: str) -> str:
        """Return a name for what happens now, the same at each first, second … time in a pass."""
        self._calls[name] += 1
        return name if self._calls[name] == 1 else f"{name}~{self._calls[name]}"

    @property
    def in_forward(self) -> bool:
        """Whether any module's forward runs."""
        return len(self._path) > 1

    @property
    def last_call(self) -> str:
        """The name of the last call: that of its site, with ``@2`` for the site's second call in the pass."""
        return per_call(self.last_drop, self.call)

    def name_drop(self) -> str:
        """Name the site of the drop that happens now.

        A site is a place in the code of a module: it has the module's path, with ``#2`` for the second place. One
        place that is called again is the same site.
        """
        path, module = self._innermost
        places = self._places.get(path)
        if places is None:
            places = self._places[path] = Places(module)
        number = places.number(self._reader.place(module))
        self.last_drop = (path or "model") if number == 1 else f"{path or 'model'}#{number}"
        self._calls[self.last_drop] += 1
        self.call = self._calls[self.last_drop]
        return self.last_drop


def _is_compiled(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)
