"""Snapshots of a module's state."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch._compat.torch_modules import buffers_of
from dropsearch.core.contents import CHANGEABLE, fill, is_same, snapshot, tensors_kept
from dropsearch.core.global_state import generators_kept

Undo = Callable[[], Any]


def hidden_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return modules in plain lists, tuples and dicts of a model, which PyTorch does not find.

    Keys are their locations, such as ``block.drops[0]``. Modules that are also registered are not included.
    """
    registered = {id(part) for part in model.modules()}
    found: dict[str, nn.Module] = {}
    for name, part in model.named_modules():
        for attribute, value in vars(part).items():
            if attribute.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            for key, each in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(each, nn.Module) and id(each) not in registered:
                    found[f"{name}.{attribute}[{key!r}]".lstrip(".")] = each
    return found


@contextmanager
def buffers_kept(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Put the buffers of modules and their numbers back when the context exits."""
    held = [buffers_of(part) for part in parts if not isinstance(part, torch.jit.ScriptModule)]
    before = [dict(buffers) for buffers in held]
    with tensors_kept(buffer for part in parts for buffer in part.buffers(recurse=False)):
        try:
            yield
        finally:
            for buffers, kept in zip(held, before, strict=True):
                buffers.update(kept)


class ModuleSnapshot:
    """The state of a module and of random generators, which can be restored."""

    def __init__(self, module: nn.Module) -> None:
        self._undo: list[Undo] = [_random_state()]
        seen: set[int] = set()
        hidden = (part for top in hidden_modules(module).values() for part in top.modules())
        for part in (*module.modules(), *hidden):
            if isinstance(part, torch.jit.ScriptModule):
                self._undo.append(functools.partial(setattr, part, "training", part.training))
            else:
                self._undo.append(_attributes(part, seen))
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                self._keep_tensor(tensor, seen)

    def _keep_tensor(self, tensor: Tensor, seen: set[int]) -> None:
        if id(tensor) in seen or tensor.is_meta:
            return
        seen.add(id(tensor))
        self._undo.append(_content(tensor))
        if isinstance(tensor, nn.Parameter):
            self._undo.append(_gradient(tensor))

    def put_back(self) -> None:
        """Restore everything."""
        for undo in self._undo:
            undo()


def _attributes(part: nn.Module, seen: set[int]) -> Undo:
    held = dict(vars(part))
    inside = [each for value in held.values() if (each := _inside(value, seen)) is not None]

    def undo() -> None:
        now = vars(part)
        if now.keys() != held.keys() or any(now[name] is not value for name, value in held.items()):
            vars(part).clear()
            vars(part).update(held)
        for each in inside:
            each()

    return undo


def _inside(value: Any, seen: set[int]) -> Undo | None:
    """Return a function that restores the content of an attribute; None without content or if handled elsewhere."""
    if id(value) in seen:
        return None
    if type(value) is Tensor:
        seen.add(id(value))
        return _content(value)
    if isinstance(value, torch.Generator):
        return functools.partial(value.set_state, value.get_state())
    if isinstance(value, CHANGEABLE):
        before = snapshot(value)
        return lambda: None if is_same(before, value) else fill(value, before)
    return None


def _content(tensor: Tensor) -> Undo:
    before, requires_grad = tensor.detach().clone(), tensor.requires_grad

    def undo() -> None:
        if tensor.is_leaf:
            tensor.requires_grad_(requires_grad)
        if not torch.equal(tensor.detach(), before):
            with torch.no_grad():
                tensor.copy_(before)

    return undo


def _gradient(parameter: nn.Parameter) -> Undo:
    gradient = parameter.grad
    content = None if gradient is None else _content(gradient)

    def undo() -> None:
        parameter.grad = gradient
        if content is not None:
            content()

    return undo


def _random_state() -> Undo:
    put_back = generators_kept()
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def undo() -> None:
        put_back()
        if on_devices:
            torch.cuda.set_rng_state_all(on_devices)

    return undo
