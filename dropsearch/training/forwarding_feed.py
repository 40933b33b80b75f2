"""A feed that forwards every call to another."""

from __future__ import annotations

from collections.abc import Sequence

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.training.protocols import Feed


class ForwardingFeed:
    """A feed that forwards every call to another; a subclass adds what it does beside."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.most_at_once = feed.most_at_once

    @property
    def held(self) -> bool:
        """Whether to ask again later."""
        return self._feed.held

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials."""
        return self._feed.ask(count)

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Forward epochs."""
        return self._feed.report(reports)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Forward results."""
        self._feed.tell(results)

    def cancelled(self) -> bool:
        """Return whether to stop."""
        return self._feed.cancelled()
