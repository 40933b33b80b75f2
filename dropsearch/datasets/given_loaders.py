"""Loaders that were handed over without a data module."""

from __future__ import annotations

from typing import Any


class GivenLoaders:
    """Stands where a data module would: it holds loaders, and a Trainer gets them as they are.

    Args:
        train: The training batches.
        val: The validation batches, from one loader or several.
        test: The test batches; None for no test set.
    """

    def __init__(self, train: Any, val: Any, test: Any = None) -> None:
        self.train, self.val, self.test = train, val, test

    def prepare_data(self) -> None:
        """Prepare nothing."""

    def setup(self, stage: str) -> None:
        """Set nothing up."""

    def train_dataloader(self) -> Any:
        """Return the training batches."""
        return self.train

    def val_dataloader(self) -> Any:
        """Return the validation batches."""
        return self.val

    def test_dataloader(self) -> Any:
        """Return the test batches, or None."""
        return self.test
