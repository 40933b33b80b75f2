"""Proposals of trials, before they are created."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from dropsearch._compat.optuna_writes import filtered
from dropsearch.study import trial_entry
from dropsearch.study.search_space import Params
from dropsearch.study.shadow_study import Shadow
from dropsearch.study.trial_entry import TrialKey


class Wish(NamedTuple):
    """A trial to start."""

    trial_key: TrialKey
    """Key of the trial."""
    point: Params
    """Fixed parameters; the sampler proposes the others."""
    seed: int
    """The sampler's seed."""
    unknown: frozenset[int] = frozenset()
    """The numbers of the trials that are as if they had just begun, for the sampler."""


class Proposer:
    """Proposes trials by the samplers of a study."""

    def __init__(self, seen: Shadow, make_sampler: Callable[[int], BaseSampler], pruner: BasePruner) -> None:
        self._seen, self._make_sampler, self._pruner = seen, make_sampler, pruner
        self._inferring = make_sampler(0)  # all samplers infer the same search space, so one does it

    def templates(
        self, distributions: Mapping[str, BaseDistribution], wishes: Sequence[tuple[Wish, Mapping[str, Any]]]
    ) -> list[FrozenTrial]:
        """Return the trials to create; each is in the in-memory study while the next ones are proposed."""
        first = self._seen.next_number
        templates: list[FrozenTrial] = []
        inferred: dict[frozenset[int], Mapping[str, BaseDistribution]] = {}
        try:
            for number, (wish, attrs) in enumerate(wishes, start=first):
                trial = trial_entry.running(number, {})
                self._seen.put(trial)
                study = self._seen.study(self._make_sampler(wish.seed), self._pruner, wish.unknown)
                if wish.unknown not in inferred:  # no trial ends in the meantime
                    inferred[wish.unknown] = self._inferring.infer_relative_search_space(study, trial)
                params = propose(study, trial, distributions, wish.point, inferred[wish.unknown])
                templates.append(trial_entry.running(number, attrs, params, distributions))
                self._seen.put(templates[-1])
        finally:
            for number in range(first, first + len(templates) + 1):
                self._seen.discard(number)
        return templates


def propose(
    study: optuna.Study,
    trial: FrozenTrial,
    distributions: Mapping[str, BaseDistribution],
    point: Mapping[str, Any],
    inferred: Mapping[str, BaseDistribution],
) -> dict[str, Any]:
    """Return the parameters of a trial before it is created; `Trial.suggest_*` would need a created trial.

    Args:
        point: Fixed values of some parameters.
        inferred: The sampler's relative search space, whose parameters it proposes jointly.
    """
    sampler, seen = study.sampler, filtered(study, trial)
    sampler.before_trial(seen, trial)
    searched = {name: given for name, given in inferred.items() if name in distributions and name not in point}
    relative = sampler.sample_relative(seen, trial, searched)
    found = {}
    for name, given in distributions.items():
        if name in point:
            value = point[name]
        elif given.single():
            value = given.choices[0] if isinstance(given, CategoricalDistribution) else given.low  # type: ignore[attr-defined]
        elif name in relative:
            value = relative[name]
        else:
            value = sampler.sample_independent(seen, trial, name, given)
        found[name] = given.to_external_repr(given.to_internal_repr(value))
    return found
