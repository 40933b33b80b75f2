"""The hooks of a data module that change batches on their way to the module, called without a Trainer."""

from __future__ import annotations

import copy
from typing import Any

import torch

from dropsearch.core.batches import cast
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_state import changed, generator_states, seeded
from dropsearch.datasets.batch_digest import digest
from dropsearch.datasets.kept_state import kept_state
from dropsearch.datasets.user_parts import defines

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class BatchHooks:
    """The batch transfer hooks that a data module defines.

    In double precision, real tensors are converted to float64 first, as a Trainer does.
    """

    def __init__(self, module: Any, *, is_double: bool) -> None:
        self._module, self._is_double = module, is_double
        self.names = tuple(hook for hook in HOOKS if defines(module, hook))

    def __call__(self, batch: Any) -> Any:
        """Return the batch that the module gets; raise `UnsupportedError` if a hook asks for its Trainer."""
        if self._is_double:
            batch = cast(batch, torch.float64)
        with changed(self._module, trainer=_NoTrainer()):
            for name in self.names:
                batch = getattr(self._module, name)(batch, 0)
        return batch

    def can_be_called(self, batch: Any) -> bool:
        """Return whether the hooks need no Trainer, keep no state and draw no random numbers, as seen on one batch.

        They are called twice: their answers must be equal, and what the data module holds must stay the same.
        """
        if "transfer_batch_to_device" in self.names:
            return False
        with seeded(0):
            before = generator_states(), kept_state(self._module, self.names)
            try:
                one, other = (digest(self(copy.deepcopy(batch))) for _ in range(2))
            except Exception:  # a Trainer may be able to call them
                return False
            return one == other and before == (generator_states(), kept_state(self._module, self.names))


class _NoTrainer:
    """The Trainer of a data module whose hooks are called without one; any use raises an error."""

    def __getattr__(self, name: str) -> Any:
        raise UnsupportedError("a hook of the data module asks for its Trainer")

    def __bool__(self) -> bool:
        raise UnsupportedError("a hook of the data module asks for its Trainer")
