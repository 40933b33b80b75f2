"""Loaders in the place of a data module, and in a copy of one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dropsearch.core.errors import InputError

PARTS = ("train", "val", "test")


class GivenLoaders:
    """A minimal data module that returns given loaders unchanged; there may be several for validation and none to test.

    With `make_module` they are those that a module defines, which it builds.
    """

    def __init__(
        self, train: Any = None, val: Any = None, test: Any = None, make_module: Callable[[], Any] | None = None
    ) -> None:
        self.train, self.val, self.test, self._make_module = train, val, test, make_module

    def prepare_data(self) -> None:
        """Get the loaders from the module, as a Trainer does."""
        if self._make_module is None:
            return
        module = self._make_module()
        module.prepare_data()
        module.setup("fit")
        self.train, self.val = module.train_dataloader(), module.val_dataloader()
        if type(module).test_dataloader.__module__.split(".")[0] not in ("lightning", "pytorch_lightning"):
            module.setup("test")
            self.test = module.test_dataloader()

    def setup(self, stage: str) -> None:
        """Do nothing."""

    def train_dataloader(self) -> Any:
        """Return the training batches."""
        return self.train

    def val_dataloader(self) -> Any:
        """Return the validation batches."""
        return self.val

    def test_dataloader(self) -> Any:
        """Return the test batches, or None."""
        return self.test


def as_data_module(made: Any, name: str) -> Any:
    """Return a data module as it is, and loaders as `GivenLoaders`; messages call it `name`.

    Loaders, each as `Trainer.fit` takes it, are ``(train, val)``, ``(train, val, test)``, or a mapping with the keys
    train, val and test, which may end in ``_dataloader`` or ``_dataloaders``. Raises `InputError` for anything else.
    """
    if hasattr(made, "train_dataloader"):
        return made
    loaders = _by_part(made)
    if not {"train", "val"} <= loaders.keys() <= set(PARTS):
        raise InputError(
            f"data={name} must be a LightningDataModule, or return loaders: (train, val), (train, val, test) or a "
            f"mapping with these keys, got {_described(made)}"
        )
    return GivenLoaders(**loaders)


def _by_part(made: Any) -> dict[str, Any]:
    if isinstance(made, Mapping):
        return {str(key).removesuffix("s").removesuffix("_dataloader"): loader for key, loader in made.items()}
    if isinstance(made, list | tuple) and len(made) in (2, 3):
        return dict(zip(PARTS, made, strict=False))
    return {}


def _described(made: Any) -> str:
    held = f" with {', '.join(map(str, made))}" if isinstance(made, Mapping) else ""
    held = f" of {len(made)}" if isinstance(made, list | tuple) else held
    return f"a {type(made).__name__}{held}"


def prepared(module: Any, again: Callable[[Any], Any] = lambda loader: loader, **loaders: Any) -> Any:
    """Return a copy of a data module without setup, whose methods first return these loaders, for a Trainer.

    `again` is applied to each training loader that the data module makes when the Trainer reloads it.
    """
    twin = copy.copy(module)
    for name in ("prepare_data", "setup", "teardown"):
        twin.__dict__[name] = _nothing
    for name, loader in loaders.items():
        own = vars(module).get(name) or partial(getattr(type(module), name), twin)
        twin.__dict__[name] = partial(_next_loader, own, again if name == "train_dataloader" else None, [loader])
    return twin


def _nothing(*_: Any, **__: Any) -> None:
    """Replace the setup, which is already done."""


def _next_loader(own: Any, again: Callable[[Any], Any] | None, first: list[Any]) -> Any:
    if first:
        return first.pop()
    loader = own()
    return loader if again is None else again(loader)
