"""What is trained next: the search's trials, then the confirmation's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optuna.trial import Trial

from dropsearch.errors import RunError
from dropsearch.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.search.ledger import Ledger
from dropsearch.search.space import Space
from dropsearch.seeds import trial_seed

ALIKE = 5
"""A run stops when this many first trials of a study all fail for the same reason."""


class SearchFeed:
    """The trials of one arm's study, up to a total that counts what earlier runs did.

    Args:
        ledger: The arm's study.
        space: What is searched.
        total: How many trials the study is to have.
        seed: The seed that the trials' own seeds derive from.
        cancelled: Whether to stop now.
        most_at_once: How many trials may be open at once; None for any number.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        *,
        total: int,
        seed: int,
        cancelled: Callable[[], bool],
        most_at_once: int | None = None,
    ) -> None:
        self.ledger, self.space = ledger, space
        self.total, self.seed = total, seed
        self.cancelled, self.most_at_once = cancelled, most_at_once
        ledger.close_abandoned()
        ledger.queue_interrupted()

    def ask(self) -> TrialSpec | None:
        """Return the next trial, None when the study has its total."""
        taken = self.ledger.indices
        index = next(i for i in range(len(taken) + 1) if i not in taken)
        if not self.ledger.waiting and index >= self.total:
            return None
        first = self.space.first_points[index] if index < len(self.space.first_points) else None
        return self._spec(self.ledger.ask(self.space.distributions, first, {"index": index}))

    def _spec(self, trial: Trial) -> TrialSpec:
        return TrialSpec(
            arm=self.ledger.arm,
            number=trial.number,
            seed=trial_seed(self.seed, trial.user_attrs["index"]),
            rates=self.space.rates(trial.params),
            lr=trial.params["lr"],
            weight_decay=trial.params["weight_decay"],
            params=dict(trial.params),
        )

    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        """Report an epoch; return whether the trial is pruned."""
        return self.ledger.report(spec, metrics)

    def tell(self, result: TrialResult) -> None:
        """End a trial.

        Raises:
            RunError: The first trials of the study all failed alike.
        """
        self.ledger.tell(result)
        stop_if_all_fail_alike(self.ledger.results())


class ConfirmFeed:
    """The best configurations of one arm on fresh seeds.

    Args:
        ledger: The study of the arm's confirmation.
        space: What the search proposed its parameters from.
        configurations: The search's trials to retrain.
        seeds: The seeds, the same for every configuration and arm.
        cancelled: Whether to stop now.
        done: Says whether an earlier run's result can stand, for instance because its checkpoint is there.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        configurations: Sequence[TrialResult],
        seeds: Sequence[int],
        *,
        cancelled: Callable[[], bool],
        done: Callable[[TrialResult], bool],
    ) -> None:
        self.ledger, self.space = ledger, space
        self.cancelled, self.most_at_once = cancelled, None
        ledger.close_abandoned()
        finished = {(r.spec.configuration, r.spec.seed) for r in ledger.results() if done(r)}
        pairs = [(c, seed) for c in configurations for seed in seeds]
        self._waiting = [(c, seed) for c, seed in pairs if (c.spec.number, seed) not in finished]
        self.total, self.finished = len(pairs), len(pairs) - len(self._waiting)

    def ask(self) -> TrialSpec | None:
        """Return the next retraining, None when all are begun."""
        if not self._waiting:
            return None
        configuration, seed = self._waiting.pop(0)
        spec = configuration.spec
        attrs = {"configuration": spec.number, "seed": seed}
        trial = self.ledger.ask(self.space.distributions, dict(spec.params), attrs)
        return TrialSpec(
            arm=spec.arm,
            number=trial.number,
            seed=seed,
            rates=spec.rates,
            lr=spec.lr,
            weight_decay=spec.weight_decay,
            params=spec.params,
            purpose="confirm",
            configuration=spec.number,
        )

    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        """Take in an epoch; a confirmation is never pruned."""
        return False

    def tell(self, result: TrialResult) -> None:
        """End a retraining."""
        self.ledger.tell(result)


def stop_if_all_fail_alike(results: Sequence[TrialResult]) -> None:
    """Raise where nothing but the same failure has come of the first trials.

    Raises:
        RunError: At least `ALIKE` trials ended, all of them failed, all for the same reason.
    """
    if len(results) < ALIKE or any(result.state != "FAIL" for result in results):
        return
    kinds = {result.reason.split(":")[0] for result in results}
    if len(kinds) == 1:
        arm = results[0].spec.arm
        raise RunError(f"the first {len(results)} trials of arm {arm} all failed alike ({results[0].reason})")
