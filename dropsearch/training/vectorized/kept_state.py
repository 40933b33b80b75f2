"""State that steps keep although the first steps did not, of a module whose steps only compute a loss and log means."""

from __future__ import annotations

from torch import nn

from dropsearch.core.errors import UnsupportedError
from dropsearch.training.vectorized.attribute_watch import AttributeWatch
from dropsearch.training.vectorized.shared_state import SharedState
from dropsearch.training.vectorized.watched_parts import place_of, shown, watched_parts


class KeptState:
    """What a module, its classes and its files hold before many steps."""

    def __init__(self, module: nn.Module) -> None:
        self._module, parts = module, watched_parts(module)
        self._watch, self._shared = AttributeWatch(module, parts), SharedState(parts)
        self._before = self._shared.snapshot()

    def require_unchanged(self) -> None:
        """Raise `UnsupportedError` if steps have changed something."""
        for path, name in self._watch.changed():
            place = place_of(self._module, path, name)
            raise UnsupportedError(f"a step changes {shown(path, name)}, as the first steps did not{place}")
        self._shared.require_same(self._before)
