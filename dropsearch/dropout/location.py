"""Where in a model a forward pass is, and the name of the site that drops there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

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


def _ignore(*_: Any) -> None:
    """Stand in the place of a hook in copies and files."""


class Hook:
    """A hook that follows a module while a control watches it; copies and pickles of the module hold an empty one."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *_: Any) -> None:
        """Note that the module is entered or left."""
        self._call()

    def __reduce__(self) -> Any:
        """Keep the control, and the model that it follows, out of copies and checkpoints."""
        return Hook, (_ignore,)


class ModuleLocation:
    """Which module of a model runs right now, which site drops there, and how often it has in this pass."""

    def __init__(
        self,
        model: nn.Module,
        entered: Callable[[str, nn.Module], None] = _ignore,
        left: Callable[[], None] = _ignore,
    ) -> None:
        self._model = model
        self._entered, self._left = entered, left
        self._path: list[tuple[str, nn.Module]] = [("", model)]
        self._calls: Counter[str] = Counter()
        self._places: dict[str, Places] = {}
        self._reader = CallReader()
        self._followed: dict[int, nn.Module] = {}
        self._grown: Callable[[], None] | None = None
        self.last_drop = "model"
        """The name of the site that dropped last."""
        self.call = 0
        """Which call of that site in this pass it was, counted from 1."""

    @contextmanager
    def followed(self, sites: Iterable[str] | None = None) -> Iterator[None]:
        """Follow the model's forward passes while the context lasts.

        Args:
            sites: Where it is known which sites there are: only the modules that have one are followed.
        """
        owners = None if sites is None else {owner_of(site) for site in sites}
        if owners and "model" in owners:
            owners.add("")
        with ExitStack() as hooks:
            self._follow(hooks, owners)
            self._grown = None if sites is not None else lambda: self._follow(hooks, None)
            try:
                yield
            finally:
                self._grown = None
                self._followed.clear()

    def _follow(self, hooks: ExitStack, owners: set[str] | None) -> None:
        """Follow the modules that are not followed yet: some build layers in hooks of the Trainer."""
        for name, module in self._model.named_modules():
            # What TorchScript compiled takes no hooks and shows no calls.
            wanted = (owners is None or name in owners) and not isinstance(module, torch.jit.ScriptModule)
            if wanted and id(module) not in self._followed:
                self._followed[id(module)] = module
                hooks.enter_context(self._hooked(name, module))

    @contextmanager
    def _hooked(self, name: str, module: nn.Module) -> Iterator[None]:
        entered = module.register_forward_pre_hook(Hook(lambda: self._enter(name, module)))
        left = module.register_forward_hook(Hook(self._leave), always_call=True)
        try:
            yield
        finally:
            entered.remove()
            left.remove()

    def _enter(self, name: str, module: nn.Module) -> None:
        self._path.append((name, module))
        self._entered(name, module)

    def _leave(self) -> None:
        if len(self._path) > 1:
            self._left()
            self._path.pop()

    def restart(self) -> None:
        """Forget the calls counted so far: a new pass begins at the root of the model."""
        del self._path[1:]
        self._calls.clear()
        if self._grown is not None:
            self._grown()

    def remembered(self) -> Callable[[], Any]:
        """Remember this point of the pass; return a context in which it is this point again."""
        path, calls = list(self._path), Counter(self._calls)

        @contextmanager
        def again() -> Iterator[None]:
            now = list(self._path), Counter(self._calls), self.last_drop, self.call
            self._path[:], self._calls = path, Counter(calls)
            try:
                yield
            finally:
                self._path[:], self._calls, self.last_drop, self.call = now

        return again

    @property
    def module(self) -> nn.Module:
        """The module whose forward runs."""
        return self._path[-1][1]

    @property
    def path(self) -> str:
        """The path of that module; empty for the model itself."""
        return self._path[-1][0]

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
        path, module = self._path[-1]
        places = self._places.get(path)
        if places is None:
            places = self._places[path] = Places(module)
        number = places.number(self._reader.place(module))
        self.last_drop = (path or "model") if number == 1 else f"{path or 'model'}#{number}"
        self._calls[self.last_drop] += 1
        self.call = self._calls[self.last_drop]
        return self.last_drop
