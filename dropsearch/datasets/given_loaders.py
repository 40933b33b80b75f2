"""Loaders passed without a data module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class GivenLoaders:
    """A minimal data module that returns given loaders unchanged.

    Args:
        train: The training batches.
        val: The validation batches: one loader or several.
        test: The test batches; None for no test set.
        make_module: Instead of loaders, a function that builds a module which defines its own loaders.
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
