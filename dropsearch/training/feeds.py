"""Feeds around another feed: one that forwards every call, and one whose errors end the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dropsearch.core.errors import InputError, RunError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.core.user_errors import USER_ERRORS, described
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


class CheckedFeed(ForwardingFeed):
    """Forwards every call to a feed and raises its errors as `RunError`, which no engine catches.

    Engines turn other errors into failed trials, or train sequentially after them. An error of a study, a sampler or a
    tracker would then be lost, and so would the results that were being recorded.
    """

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials."""
        with _raising("no trial can be started"):
            return super().ask(count)

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Forward epochs."""
        with _raising(f"no epoch can be reported of {_named([spec for spec, _ in reports])}"):
            return super().report(reports)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Forward results."""
        with _raising(f"no result can be recorded of {_named([result.spec for result in results])}"):
            super().tell(results)

    def cancelled(self) -> bool:
        """Return whether to stop."""
        with _raising("the run cannot go on"):
            return super().cancelled()


@contextmanager
def _raising(what: str) -> Iterator[None]:
    try:
        yield
    except (InputError, RunError):
        raise
    except USER_ERRORS as error:
        next_step = "repeat the command to continue from the recorded trials"
        raise RunError(f"{what} ({described(error)}): {next_step}") from error


def _named(specs: Sequence[TrialSpec]) -> str:
    more = f" and {len(specs) - 1} more" if len(specs) > 1 else ""
    return f"trial {specs[0].key}{more}" if specs else "no trial"
