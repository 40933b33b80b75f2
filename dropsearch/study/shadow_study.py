"""An in-memory copy of a study for samplers and pruners, updated with each trial instead of read from the storage."""

from __future__ import annotations

import copy
from bisect import bisect_left, insort
from collections.abc import Container, Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import Any, NoReturn

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

SEEN, BEST = 1000, 25
"""Number of the newest and of the best trials that a sampler sees in a long study.

TPE uses at most the 25 best trials as good ones, so it sees all of them; among the others, older ones have less weight.
"""


class Shadow(BaseStorage):
    """An Optuna storage of one study with the methods that samplers, pruners and importance evaluators use.

    Args:
        study_name: Name of the copied study; Hyperband derives its brackets from it.
    """

    def __init__(self, study_name: str) -> None:
        self._name = study_name
        self._numbers: dict[TrialState, list[int]] = {state: [] for state in TrialState}
        self._trials: dict[TrialState, list[FrozenTrial]] = {state: [] for state in TrialState}
        self._states: dict[int, TrialState] = {}
        self._running: dict[int, int] = {}
        self._best: list[tuple[float, int]] = []

    # -- updates and queries by the study store

    @property
    def next_number(self) -> int:
        """The number of the next trial, unless another process creates one first."""
        return max(numbers[-1] for numbers in (*self._numbers.values(), [-1]) if numbers) + 1

    def __contains__(self, number: int) -> bool:
        return number in self._states

    def get(self, number: int) -> FrozenTrial:
        """Return a trial."""
        state = self._states[number]
        return self._trials[state][bisect_left(self._numbers[state], number)]

    def of(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, by number."""
        return self.get_all_trials(0, deepcopy=False, states=states)

    def count(self, state: TrialState) -> int:
        """Return the number of trials in a state."""
        return len(self._trials[state])

    def put(self, trial: FrozenTrial) -> None:
        """Insert a trial or replace it by its current state."""
        if self._states.get(trial.number) == trial.state:
            self._trials[trial.state][bisect_left(self._numbers[trial.state], trial.number)] = trial
            return
        self.discard(trial.number)
        at = bisect_left(self._numbers[trial.state], trial.number)
        self._numbers[trial.state].insert(at, trial.number)
        self._trials[trial.state].insert(at, trial)
        self._states[trial.number] = trial.state
        if trial.state == TrialState.RUNNING:
            self._running[trial._trial_id] = trial.number
        elif trial.state == TrialState.COMPLETE and trial.value is not None:
            insort(self._best, (trial.value, trial.number))
            del self._best[BEST:]

    def discard(self, number: int) -> None:
        """Remove a trial."""
        state = self._states.pop(number, None)
        if state is None:
            return
        at = bisect_left(self._numbers[state], number)
        self._running.pop(self._trials[state][at]._trial_id, None)
        del self._numbers[state][at], self._trials[state][at]

    def report(self, number: int, step: int, value: float) -> FrozenTrial:
        """Add a value to a running trial, and return the trial."""
        trial = copy.copy(self.get(number))
        trial.intermediate_values = {**trial.intermediate_values, step: value}
        self.put(trial)
        return trial

    def study(
        self,
        sampler: BaseSampler | None = None,
        pruner: BasePruner | None = None,
        unknown: frozenset[int] = frozenset(),
    ) -> optuna.Study:
        """Return the trials as an Optuna study. Use it once, since Optuna caches what it has read.

        Args:
            unknown: The numbers of trials that are shown as if they had just begun.
        """
        storage = _WithoutResults(self, unknown) if unknown else self
        if sampler is not None:
            storage = _Recent(storage)
        return optuna.load_study(
            study_name=self._name, storage=storage, sampler=sampler or RandomSampler(), pruner=pruner or NopPruner()
        )

    def complete(self, unknown: frozenset[int]) -> list[FrozenTrial]:
        """Return the complete trials, by number, without those that are `unknown`."""
        return [trial for trial in self._trials[TrialState.COMPLETE] if trial.number not in unknown]

    def recent(self, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """Return the trials in these states that a sampler sees: running ones, the newest ended ones, and the best."""
        first = self._first_seen()
        return _merged([self._since(first, state) for state in TrialState if states is None or state in states])

    def _first_seen(self) -> int:
        """Return the number of the oldest of the `SEEN` newest trials that are complete or pruned."""
        numbers = [self._numbers[state] for state in (TrialState.COMPLETE, TrialState.PRUNED)]
        if sum(map(len, numbers)) <= SEEN:
            return 0
        return sorted(number for of_state in numbers for number in of_state[-SEEN:])[-SEEN]

    def _since(self, first: int, state: TrialState) -> list[FrozenTrial]:
        trials = self._trials[state]
        at = bisect_left(self._numbers[state], first)
        if state == TrialState.RUNNING or not at:
            return trials
        best = sorted(number for _, number in self._best if number < first) if state == TrialState.COMPLETE else []
        return [*map(self.get, best), *trials[at:]]

    # -- Optuna's storage interface

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials in these states, by number."""
        found = _merged([self._trials[state] for state in TrialState if states is None or state in states])
        return copy.deepcopy(found) if deepcopy else found

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a running trial."""
        return self.get(self._running[trial_id])

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store an attribute that a sampler or pruner sets for a running trial."""
        trial = copy.copy(self.get_trial(trial_id))
        trial.system_attrs = {**trial.system_attrs, key: value}
        self.put(trial)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the same id for any name: there is one study."""
        return 0

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of the copied study."""
        return self._name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the direction: minimize."""
        return [StudyDirection.MINIMIZE]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return no attributes, since samplers and pruners use none."""
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return no attributes, since samplers and pruners use none."""
        return {}

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("this copy of a study is read-only for Optuna; write to the study itself")

    create_new_study = delete_study = get_all_studies = set_study_user_attr = set_study_system_attr = _refuse
    create_new_trial = set_trial_param = set_trial_state_values = set_trial_intermediate_value = _refuse
    set_trial_user_attr = get_trial_id_from_study_id_trial_number = _refuse


class _Recent(Shadow):
    """A view of a `Shadow` that returns only the trials that a sampler sees."""

    def __init__(self, shadow: Shadow) -> None:
        vars(self).update(vars(shadow))  # shares its lists

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = self.recent(states)
        return copy.deepcopy(found) if deepcopy else found


class _WithoutResults(Shadow):
    """A copy of a `Shadow` in which some trials have just begun."""

    def __init__(self, whole: Shadow, unknown: frozenset[int]) -> None:
        self._whole, self._name = whole, whole._name
        self._states, self._running = {**whole._states}, {**whole._running}
        self._numbers = {state: [*numbers] for state, numbers in whole._numbers.items()}
        self._trials = {state: [*trials] for state, trials in whole._trials.items()}
        self._best: list[tuple[float, int]] = []
        for number in unknown:
            trial = copy.copy(whole.get(number))
            trial.state, trial.values, trial.datetime_complete = TrialState.RUNNING, None, None
            trial.intermediate_values, trial.system_attrs = {}, {}
            self.put(trial)
        if self._first_seen():
            complete = self._trials[TrialState.COMPLETE]
            self._best = nsmallest(BEST, [(t.value, t.number) for t in complete if t.value is not None])

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store an attribute, here and in the whole."""
        super().set_trial_system_attr(trial_id, key, value)
        self._whole.set_trial_system_attr(trial_id, key, value)


def _merged(sorted_trials: Sequence[list[FrozenTrial]]) -> list[FrozenTrial]:
    """Merge lists of trials, in the order of their numbers."""
    filled = [trials for trials in sorted_trials if trials]
    if len(filled) == 1:
        return [*filled[0]]
    return sorted((trial for trials in filled for trial in trials), key=attrgetter("number"))
