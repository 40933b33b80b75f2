"""Running all arms: search, confirmation, and one test of the winners."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dropsearch.config.budget import is_time
from dropsearch.core.errors import InputError, RunError
from dropsearch.core.printable import tell
from dropsearch.core.records import ArmOutcome, Confirmed, TrialPhase, TrialResult
from dropsearch.core.records.arms import typical_rates
from dropsearch.core.seeds import confirmation_seeds, repeat_seed
from dropsearch.experiment.checkpoints import kept_checkpoint
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.engines import most_at_once
from dropsearch.experiment.studies import ArmStudies
from dropsearch.experiment.watchdog import HeardFeed, Watchdog
from dropsearch.experiment.winner_tests import WinnerTests, unfinished
from dropsearch.study.feeds import ConfirmFeed, StudyFeed, may_succeed, release_invalid
from dropsearch.study.known_trials import heartbeat
from dropsearch.study.search_feed import SearchFeed
from dropsearch.study.selection import (
    best_configurations,
    candidates,
    confirmed_configurations,
    planned_retrainings,
    retraining_count,
    winner,
)
from dropsearch.study.store import StudyStore
from dropsearch.study.trial_entry import TrialKey
from dropsearch.training.multiprocess import CrewEngine
from dropsearch.training.protocols import Engine, Feed

Watch = Callable[[Feed], Feed]
"""Wraps a feed with tracking and progress."""
Variations = Callable[[ArmStudies, Confirmed | None], StudyFeed]
"""Creates the feed of variations of an arm's winner."""

POLL_SECONDS, LONGEST_POLL = 0.5, 5.0
"""First and last interval of polling other processes that work on the same studies, in seconds."""


class ArmRunner:
    """Gives every arm the same chance: the same trials, epochs, settings, split and seeds.

    Args:
        only_trains: Whether another process evaluates the results, so that no earlier retraining is repeated.
    """

    def __init__(
        self,
        context: ExperimentContext,
        studies: Sequence[ArmStudies],
        engine: Engine,
        cancelled: Callable[[], bool],
        only_trains: bool = False,
    ) -> None:
        self.only_trains = only_trains
        self.context, self.studies, self.engine, self.cancelled = context, studies, engine, cancelled
        self.seeds = confirmation_seeds(context.config.seed, context.config.confirm.seeds)
        self.is_repeatable = True
        """Whether the trials of the searches follow from seed and settings; see `SearchFeed`."""
        self._known_elsewhere: dict[str, set[int]] = {}
        """Numbers of trials that `new_elsewhere` has returned, by study."""
        self._tests = WinnerTests(context, () if only_trains else studies)

    def search(self, watch: Watch) -> None:
        """Run each arm's study to its total."""
        feeds = [self._search_feed(arm, arm.search) for arm in self.studies]
        self._fill(feeds, watch)
        self.is_repeatable &= all(feed.is_repeatable for feed in feeds)

    def trials_left(self, number: int = 1) -> int:
        """Return the number of missing trials in the arms' searches, or in a repetition of them."""
        stores = [arm.search if number == 1 else arm.repeats[number - 2] for arm in self.studies]
        return sum(max(self.context.config.study.n_trials - len(store.results()), 0) for store in stores)

    def retrainings_left(self) -> int:
        """Return the number of missing retrainings in the arms' confirmations, if none fails."""
        return sum(self._retrainings_left(arm) for arm in self.studies)

    def _retrainings_left(self, arm: ArmStudies) -> int:
        planned, missing = self._planned(arm)
        expected = retraining_count(
            len(self._configurations(arm)), len(self.seeds), self.context.config.confirm.screening_seeds
        )
        return len(missing) + max(expected - len(planned), 0)

    def new_elsewhere(self) -> list[TrialResult]:
        """Return results of trials that other processes ended, as of the last read, without those of earlier calls."""
        found = []
        for store in (store for arm in self.studies for store in arm.stores):
            known = self._known_elsewhere.setdefault(store.study.study_name, set())
            new = store.results_elsewhere(known)
            known.update(new)
            found += new.values()
        return found

    def repeat(self, watch: Watch, number: int) -> None:
        """Run a repetition of each arm's search, 2 being the first, to the same total.

        Its trials are not used for selection; otherwise arms would have more trials than their budget.
        """
        self._fill([self._search_feed(arm, arm.repeats[number - 2]) for arm in self.studies], watch)

    def _search_feed(self, arm: ArmStudies, store: StudyStore) -> SearchFeed:
        return SearchFeed(
            store,
            arm.space,
            total=self.context.config.study.n_trials,
            seed=repeat_seed(self.context.config.seed, store.repeat),
            cancelled=self.cancelled,
            most_at_once=most_at_once(self.context.config),
            timeout=self.context.config.study.timeout,
            retry_failed=self.context.config.study.retry_failed,
            max_epochs=self.context.config.trainer.max_epochs,
            waits=not is_time(self.context.config.budget),
        )

    def vary(self, watch: Watch, phase: TrialPhase, variations: Variations) -> None:
        """Retrain the winners with a change, in the arms that have a study for it."""
        arms = [arm for arm in self.studies if phase in arm.retrained]
        self._fill([variations(arm, self.winner(arm)) for arm in arms], watch)

    def winner(self, arm: ArmStudies) -> Confirmed | None:
        """Return the winner of an arm's confirmation, if there is one."""
        return self._outcome(arm).winner

    def _fill(self, feeds: Sequence[StudyFeed], watch: Watch) -> None:
        """Train all trials of the feeds, and wait for trials that other processes train.

        The next phase depends on all of them, and the trials of a process that dies must be trained here.
        """
        watchdog = Watchdog(self.engine if isinstance(self.engine, CrewEngine) else None)
        watched = [HeardFeed(watch(feed), watchdog) for feed in feeds]
        with heartbeat([feed.store.renew_late for feed in feeds]), watchdog.watching():
            self._run_until_done(feeds, watched)

    def _run_until_done(self, feeds: Sequence[StudyFeed], watched: Sequence[Feed]) -> None:
        was_reported, pause = False, POLL_SECONDS
        while True:
            for feed, tracked in zip(feeds, watched, strict=True):
                self.engine.run(tracked)
                while feed.held and not self.cancelled():
                    self.engine.run(tracked)
                if feed.store.is_training and not self.cancelled():
                    raise RunError(
                        f"the engine ended before the trials of arm {feed.store.arm} that it had begun: repeat the "
                        "command, which trains them again"
                    )
            others = {owner for feed in feeds for owner in feed.store.running_elsewhere()}
            if self.cancelled() or not others:
                return
            if not was_reported:
                tell(f"waiting for {', '.join(sorted(others))}, which trains trials of this study")
            was_reported = True
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_POLL)

    def confirm(self, watch: Watch) -> None:
        """Retrain the best configurations of each arm on fresh seeds, the same in all arms, in rounds.

        Each round depends on the results of those before it: see `planned_retrainings`.
        """
        for arm in self.studies:
            release_invalid(arm.confirm, lambda result: not may_succeed(result) and self._is_kept(result))
        before: list[set[TrialKey]] = []
        while not self.cancelled():
            missing = [self._planned(arm)[1] for arm in self.studies]
            # Ends with a round without changes; retrainings that failed twice are left to the next run.
            if not any(missing) or missing == before:
                return
            before = missing
            feeds = [
                ConfirmFeed(
                    arm.confirm, arm.space, self._configurations(arm), self._planned(arm)[0], cancelled=self.cancelled
                )
                for arm in self.studies
            ]
            self._fill(feeds, watch)

    def _is_kept(self, result: TrialResult) -> bool:
        """Return whether the retraining of an earlier run is still valid."""
        return self.only_trains or result.state == "FAIL" or kept_checkpoint(self.context.checkpoints, result).exists()

    def _configurations(self, arm: ArmStudies) -> tuple[TrialResult, ...]:
        return best_configurations(arm.search.results(), self.context.config.confirm.top_k)

    def outcomes(self, *, open_test: bool, step: Callable[[], None] = lambda: None) -> dict[str, ArmOutcome]:
        """Return the outcome of each arm.

        Args:
            open_test: Whether to test the confirmed winners, once and only after every selection.
        """
        found = {arm.arm.name: self._outcome(arm) for arm in self.studies}
        for arm in self.studies if open_test else ():
            outcome = found[arm.arm.name]
            if outcome.winner:
                found[arm.arm.name] = self._tests.judged(arm, outcome, outcome.winner, step)
        return found

    def recorded(self) -> dict[str, ArmOutcome]:
        """Return the outcomes of a finished earlier run, without training, testing or recording anything.

        Raises:
            InputError: The study is not finished, or a winner's checkpoint is missing.
        """
        for arm in self.studies:
            missing = self._planned(arm)[1]
            if missing or not arm.search.results():
                what = f"{len(missing)} retrainings" if missing else "all trials"
                raise InputError(
                    unfinished(self.context.config.study.name, f"{what} of arm {arm.arm.name} are missing")
                )
        found = {arm.arm.name: self._outcome(arm) for arm in self.studies}
        for arm in self.studies:
            outcome = found[arm.arm.name]
            if outcome.winner is not None:
                self._tests.check_opened(arm, outcome.winner)
                found[arm.arm.name] = self._tests.judged(arm, outcome, outcome.winner)
                self._tests.check_kept(outcome.winner.results)
        return found

    def _planned(self, arm: ArmStudies) -> tuple[tuple[TrialKey, ...], set[TrialKey]]:
        """Return the retrainings that the results so far require, and the missing ones among them."""
        results = arm.confirm.results()
        screening = self.context.config.confirm.screening_seeds
        planned = planned_retrainings(self._configurations(arm), results, self.seeds, screening)
        return planned, set(planned) - {(result.spec.configuration or 0, result.spec.seed) for result in results}

    def _outcome(self, arm: ArmStudies) -> ArmOutcome:
        confirmed = {each.arm.name: self._confirmed(each) for each in self.studies}
        known = {each.arm.name: each.arm for each in self.studies}
        alike = {n: found for n, found in confirmed.items() if self.context.modules.are_alike(arm.arm.name, n)}
        best = winner(candidates(arm.space, alike, known), len(self.seeds))
        typical = typical_rates(self.context.sites) if arm.arm.dropout != "off" else {}
        shown = self.context.monitor
        again = tuple(store.results() for store in arm.repeats)
        own = confirmed[arm.arm.name]
        return ArmOutcome(arm.arm, arm.search.results(), own, best, typical=typical, monitor=shown, repeats=again)

    def _confirmed(self, arm: ArmStudies) -> tuple[Confirmed, ...]:
        return confirmed_configurations(self._configurations(arm), arm.confirm.results(), self.seeds)
