"""One Optuna study, and what each of its trials means to us."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, PartialFixedSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from dropsearch.errors import InputError
from dropsearch.owner import is_dead, this_process
from dropsearch.records import EpochMetrics, Purpose, State, TrialResult, TrialSpec
from dropsearch.search.space import Params

INTERRUPTED = "interrupted"
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Ledger:
    """A study in which each trial carries its seed, its rates and, when it has ended, its whole curve.

    All that a report or a tracker needs can be read back from the storage alone, so nothing that was told
    is lost with the process that told it.

    Args:
        storage: Where the study is kept.
        name: The study's name in the storage.
        arm: The arm's name.
        purpose: Search or confirmation.
        fingerprint: What must be the same for the study to be continued: names and plain values.
        sampler: Optuna's sampler.
        pruner: Optuna's pruner.

    Raises:
        InputError: The storage holds a study of this name that another configuration made.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        arm: str,
        purpose: Purpose,
        fingerprint: Mapping[str, Any],
        sampler: BaseSampler | None = None,
        pruner: BasePruner | None = None,
    ) -> None:
        self.arm = arm
        self.purpose: Purpose = purpose
        with quiet_optuna():
            self.study = _open_study(storage, name, fingerprint, sampler, pruner)
        self._open: dict[int, Trial] = {}
        self._worker = this_process()
        self._registered = False

    def ask(
        self, distributions: Mapping[str, BaseDistribution], point: Params | None, attrs: Mapping[str, Any]
    ) -> Trial:
        """Begin a trial: one that waits to be asked again, else at `point`, else where the sampler proposes.

        Args:
            distributions: The parameters of the trial.
            point: Their values; None leaves them to the sampler.
            attrs: User attributes; a trial that waited has its own already, and keeps them.
        """
        self._register()
        with quiet_optuna(), self._sampling_at(point):
            trial = self.study.ask(fixed_distributions=dict(distributions))
        trial.set_user_attr("owner", self._worker)
        for name, value in attrs.items():
            if name not in trial.user_attrs:
                trial.set_user_attr(name, value)
        self._open[trial.number] = trial
        return trial

    @contextmanager
    def _sampling_at(self, point: Params | None) -> Iterator[None]:
        sampler = self.study.sampler
        self.study.sampler = PartialFixedSampler(point, sampler) if point else sampler
        try:
            yield
        finally:
            self.study.sampler = sampler

    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        """Report an epoch's validation loss; return whether the pruner wants the trial to stop."""
        trial = self._open[spec.number]
        trial.report(metrics.val_loss, metrics.epoch)
        return trial.should_prune()

    def tell(self, result: TrialResult) -> None:
        """End a trial. Its curve is written before its state, so an ended trial is always whole."""
        trial = self._open.pop(result.spec.number)
        trial.set_user_attr("result", _encode(result))
        self._tell(trial.number, result)

    def _tell(self, number: int, result: TrialResult) -> None:
        value = result.best.val_loss if result.state == "COMPLETE" and result.best else None
        self.study.tell(number, value, state=TrialState[result.state])

    def close_abandoned(self) -> int:
        """End the trials that dead processes left running, and queue them to be asked again; return how many."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        others_live = any(not is_dead(w) for w in self._workers() if w != self._worker)
        abandoned = [t for t in running if _is_abandoned(t, others_live)]
        for trial in abandoned:
            self._close(trial)
        return len(abandoned)

    def _close(self, trial: FrozenTrial) -> None:
        if "result" in trial.user_attrs:  # it had ended; only its state was not written any more
            self._tell(trial.number, self._decode(trial))
            return
        self.study.set_user_attr(f"{INTERRUPTED}.{trial.number}", "its process died")
        self.study.tell(trial.number, state=TrialState.FAIL)
        self._queue_again(trial)

    def _queue_again(self, trial: FrozenTrial) -> None:
        if "index" in trial.user_attrs and trial.params:
            attrs = {k: v for k, v in trial.user_attrs.items() if k not in ("owner", "result")}
            with quiet_optuna():
                self.study.enqueue_trial(trial.params, user_attrs={**attrs, "retry_of": trial.number})

    def queue_interrupted(self) -> int:
        """Queue again the trials that were stopped from outside and not asked again yet; return how many."""
        trials = self.study.get_trials(deepcopy=False)
        again = {t.user_attrs["retry_of"] for t in trials if "retry_of" in t.user_attrs}
        waiting = [t for t in trials if self._was_interrupted(t) and t.number not in again]
        for trial in waiting:
            self._queue_again(trial)
        return len(waiting)

    def _was_interrupted(self, trial: FrozenTrial) -> bool:
        if f"{INTERRUPTED}.{trial.number}" in self.study.user_attrs:
            return True
        return trial.state == TrialState.FAIL and trial.user_attrs.get("result", {}).get("reason") == INTERRUPTED

    @property
    def indices(self) -> set[int]:
        """The indices that are taken: by trials that ended, run or wait. An interrupted trial takes none."""
        trials = self.study.get_trials(deepcopy=False)
        taken = [t for t in trials if "index" in t.user_attrs and not self._was_interrupted(t)]
        return {t.user_attrs["index"] for t in taken}

    @property
    def waiting(self) -> int:
        """How many trials wait to be asked."""
        return len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def results(self) -> tuple[TrialResult, ...]:
        """Return every trial that ended and was not interrupted, by number."""
        ended = self.study.get_trials(deepcopy=False, states=_ENDED)
        return tuple(self._decode(t) for t in ended if not self._was_interrupted(t) and "result" in t.user_attrs)

    def _decode(self, trial: FrozenTrial) -> TrialResult:
        record = trial.user_attrs["result"]
        spec = TrialSpec(
            arm=self.arm,
            number=trial.number,
            params=dict(trial.params),
            purpose=self.purpose,
            **record["spec"],
        )
        curve = tuple(EpochMetrics(*point) for point in record["curve"])
        state: State = record["state"]
        return TrialResult(spec, state, curve, record["seconds"], record["reason"], record["checkpoint"])

    @property
    def notes(self) -> dict[str, Any]:
        """What was noted beside the trials, by name."""
        return {k[len("note.") :]: v for k, v in self.study.user_attrs.items() if k.startswith("note.")}

    def note(self, name: str, value: Any) -> None:
        """Note a plain value beside the trials."""
        self.study.set_user_attr(f"note.{name}", value)

    def _workers(self) -> list[str]:
        return [name[len("worker.") :] for name in self.study.user_attrs if name.startswith("worker.")]

    def _register(self) -> None:
        if not self._registered:
            self.study.set_user_attr(f"worker.{self._worker}", True)
            self._registered = True


def _encode(result: TrialResult) -> dict[str, Any]:
    spec = result.spec
    return {
        "spec": {
            "seed": spec.seed,
            "rates": dict(spec.rates),
            "lr": spec.lr,
            "weight_decay": spec.weight_decay,
            "configuration": spec.configuration,
        },
        "state": result.state,
        "curve": [list(asdict(point).values()) for point in result.curve],
        "seconds": result.seconds,
        "reason": result.reason,
        "checkpoint": result.checkpoint,
    }


def _is_abandoned(trial: FrozenTrial, others_live: bool) -> bool:
    owner = trial.user_attrs.get("owner")
    # Between its creation and its owner's name a trial has none: it may be a living neighbour's.
    return is_dead(owner) if owner else not others_live


def check_studies(storage: BaseStorage, fingerprints: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the studies which a storage holds under these names can be continued. Nothing is written.

    Args:
        storage: Where the studies are, if they are there.
        fingerprints: By study name, what must be the same for it to be continued.

    Raises:
        InputError: A study of one of these names was made by another configuration, or not by dropsearch.
    """
    for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
        if summary.study_name in fingerprints:
            study = optuna.load_study(study_name=summary.study_name, storage=storage)
            _check_same(study, _plain(fingerprints[summary.study_name]))


def trials_in(storage: BaseStorage, name: str) -> int:
    """Return how many trials a study has, 0 where there is none of this name."""
    summaries = optuna.get_all_study_summaries(storage, include_best_trial=False)
    return sum(summary.n_trials for summary in summaries if summary.study_name == name)


def _open_study(
    storage: BaseStorage,
    name: str,
    fingerprint: Mapping[str, Any],
    sampler: BaseSampler | None,
    pruner: BasePruner | None,
) -> optuna.Study:
    check_studies(storage, {name: fingerprint})
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="minimize",
        sampler=sampler,
        pruner=pruner,
        load_if_exists=True,
    )
    study.set_user_attr("fingerprint", _plain(fingerprint))
    return study


def _plain(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint as it reads when it has been through JSON."""
    return json.loads(json.dumps(dict(fingerprint)))


def _check_same(study: optuna.Study, given: Mapping[str, Any]) -> None:
    name, stored = study.study_name, study.user_attrs.get("fingerprint")
    if stored is None and not study.trials and study.directions == [StudyDirection.MINIMIZE]:
        return  # its maker was killed before the first trial
    if stored is None:
        raise InputError(
            f'study.name must be new or a study that dropsearch made, got "{name}", which is another study in this '
            "storage: choose another study.name or study.storage"
        )
    for key in sorted({*stored, *given}):
        if stored.get(key) != given.get(key):
            raise InputError(
                f"{key} must be as it was when study {name} began ({stored.get(key)}), got {given.get(key)}: "
                "choose another study.name to begin anew"
            )


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's notes on experimental features off the terminal: they were chosen on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
