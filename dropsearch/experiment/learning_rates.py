"""The range of learning rates, including the module's default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearningRates:
    """The searched learning rates.

    Args:
        configured: The configured range.
        own: The module's default; NaN if it has none.
        is_default: Whether the range is the default, which the user did not set.
    """

    configured: tuple[float, float]
    own: float
    is_default: bool

    @property
    def _beyond(self) -> bool:
        low, high = self.configured
        return 0 < self.own < low or self.own > high

    @property
    def searched(self) -> tuple[float, float]:
        """The configured range, extended to the module's default unless the user set the range."""
        low, high = self.configured
        return (min(low, self.own), max(high, self.own)) if self._beyond and self.is_default else self.configured

    @property
    def note(self) -> str:
        """A note if the configured range does not contain the module's default."""
        if not self._beyond:
            return ""
        low, high = self.configured
        left_out = f"space.lr ({low:.4g} to {high:.4g}) does not contain the module's learning rate {self.own:.4g}"
        if self.is_default:
            low, high = self.searched
            return f"{left_out}: it is searched from {low:.4g} to {high:.4g}, and its own is the first trial"
        return f"{left_out}: space.lr.{'low' if self.own < low else 'high'}={self.own:.4g} includes it"
