"""The range of learning rates, and what the module's own one has to do with it."""

from __future__ import annotations

from dataclasses import dataclass

from dropsearch.config.schema import SpaceConfig


@dataclass(frozen=True)
class LearningRates:
    """Which learning rates are searched.

    Args:
        given: The configured range.
        own: The module's own value; NaN where it has none.
    """

    given: tuple[float, float]
    own: float

    @property
    def _beyond(self) -> bool:
        low, high = self.given
        return 0 < self.own < low or self.own > high

    @property
    def _is_default(self) -> bool:
        default = SpaceConfig().lr
        return self.given == (default.low, default.high)

    @property
    def searched(self) -> tuple[float, float]:
        """The range: the configured one, which reaches to the module's own value where the user did not set it."""
        low, high = self.given
        return (min(low, self.own), max(high, self.own)) if self._beyond and self._is_default else self.given

    @property
    def note(self) -> str:
        """What a reader must know where the configured range leaves out the module's own value."""
        if not self._beyond:
            return ""
        low, high = self.given
        left_out = f"space.lr ({low:.4g} to {high:.4g}) leaves out the module's own learning rate {self.own:.4g}"
        if self._is_default:
            low, high = self.searched
            return f"{left_out}: it is searched from {low:.4g} to {high:.4g}, and its own is the first trial"
        return f"{left_out}: space.lr.{'low' if self.own < low else 'high'}={self.own:.4g} takes it in"
