"""Feeds of search and confirmation: totals across runs, paired seeds, and trials of dead processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from dropsearch.core.errors import InputError, RunError
from dropsearch.core.processes import started
from dropsearch.core.records import INTERRUPTED, Choice, EpochMetrics, Numbers, TrialResult, TrialSpec
from dropsearch.core.seeds import confirmation_seeds, trial_seed
from dropsearch.study import trial_entry
from dropsearch.study.feeds import ConfirmFeed, may_succeed, release_invalid
from dropsearch.study.search_feed import SearchFeed
from dropsearch.study.selection import best_configurations, confirmed_configurations, planned_retrainings, winner
from dropsearch.study.storage import open_storage
from dropsearch.study.store import StudyStore
from dropsearch.study.studies import check_studies, identity
from dropsearch.study.trial_entry import TrialKey
from tests.study.conftest import ask, ended, make_feed, make_space, work

MakeStore = Callable[..., StudyStore]
AsParent = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def as_parent(monkeypatch: pytest.MonkeyPatch) -> AsParent:
    """Return a context in which studies take this process for its parent: a neighbour that lives."""

    @contextmanager
    def other() -> Iterator[None]:
        with monkeypatch.context() as patched:
            name = f"{socket.gethostname()}:{os.getppid()}:{started(os.getppid())}"
            patched.setattr("dropsearch.core.processes.this_process", lambda: name)
            yield

    return other


def test_study_reaches_its_total(make_store: MakeStore) -> None:
    assert len(work(make_feed(make_store()))) == 5
    assert len(make_store().results()) == 5


def test_batched_asks_equal_single_asks(make_store: MakeStore, tmp_path_factory: pytest.TempPathFactory) -> None:
    together = make_feed(make_store(), total=7)
    first = together.ask(4)
    together.tell([ended(spec) for spec in first])
    rest = together.ask(4)
    assert [spec.number for spec in (*first, *rest)] == list(range(7))
    storage = open_storage(None, tmp_path_factory.mktemp("other") / "study.journal")
    fingerprint = {"seed": 0, "sites": ["a", "b"]}
    other = StudyStore(storage, "s/dropout", arm="dropout", phase="search", fingerprint=fingerprint)
    assert [*first, *rest] == work(make_feed(other, total=7))


def test_running_trials_write_nothing(make_store: MakeStore, tmp_path: Path) -> None:
    feed = make_feed(make_store())
    specs = feed.ask(3)
    size = (tmp_path / "study.journal").stat().st_size
    for epoch in range(4):
        feed.report([(spec, EpochMetrics(epoch, 1.0, 1.0, 1.0)) for spec in specs])
        assert not feed.cancelled()
    assert (tmp_path / "study.journal").stat().st_size == size
    feed.tell([ended(spec) for spec in specs])
    assert [len(trial.intermediate_values) for trial in make_store().study.trials] == [4, 4, 4]


def test_continued_study_reaches_the_same_total(make_store: MakeStore) -> None:
    work(make_feed(make_store()), 2)
    assert len(work(make_feed(make_store()))) == 3
    assert work(make_feed(make_store())) == []
    assert len(work(make_feed(make_store(), total=7))) == 2


def test_arms_are_paired_by_seed(make_store: MakeStore) -> None:
    ours = [spec.seed for spec in work(make_feed(make_store()))]
    theirs = [spec.seed for spec in work(make_feed(make_store(arm="both")))]
    assert ours == theirs == [trial_seed(0, i) for i in range(5)]


def test_random_trials_have_the_same_optimizer_in_every_arm(make_store: MakeStore) -> None:
    drawn = [[(s.lr, s.weight_decay) for s in work(make_feed(make_store(arm=arm)))] for arm in ("none", "dropout")]
    assert drawn[0][2:] == drawn[1][2:]
    assert len(set(drawn[0])) == 5


def test_first_two_trials_are_typical_and_zero(make_store: MakeStore) -> None:
    first, second, *_ = work(make_feed(make_store()))
    assert first.rates == pytest.approx({"a": 0.15, "b": 0.4})
    assert second.rates == {"a": 0.0, "b": 0.0}


def test_results_round_trip_through_the_storage(make_store: MakeStore) -> None:
    feed = make_feed(make_store())
    told: list[TrialResult] = []
    while specs := feed.ask(1):
        state = ("COMPLETE", "PRUNED", "FAIL")[len(told) % 3]
        told.append(ended(specs[0], state, reason="" if state == "COMPLETE" else "diverged: val_loss=nan"))
        feed.tell(told[-1:])
    assert make_store().results() == tuple(told)


EXTRA: dict[str, Any] = {
    "hyperparameters": {"model.hidden": Choice(([8], [16, 16])), "optimizer.momentum": Numbers(0.5, 0.99)},
    "start": {"model.hidden": [16, 16], "optimizer.momentum": 0.9},
}


def test_hyperparameters_round_trip_into_the_confirmation(
    make_store: MakeStore,
) -> None:
    asked = work(make_feed(make_store(), **EXTRA))
    assert asked[0].hyperparameters == EXTRA["start"]
    assert {str(spec.hyperparameters["model.hidden"]) for spec in asked} == {"[8]", "[16, 16]"}
    kept = make_store().results()
    assert [result.spec for result in kept] == asked
    confirm = ConfirmFeed(
        make_store("confirm"),
        make_space(**EXTRA),
        kept[2:4],
        [(trial.spec.number, seed) for trial in kept[2:4] for seed in (7, 8)],
        cancelled=lambda: False,
    )
    retrained = {spec.configuration: spec.hyperparameters for spec in work(confirm)}  # type: ignore[arg-type]
    assert retrained == {spec.number: spec.hyperparameters for spec in asked[2:4]}


def test_arms_are_paired_in_random_hyperparameters(make_store: MakeStore) -> None:
    drawn = [[s.hyperparameters for s in work(make_feed(make_store(arm=arm), **EXTRA))] for arm in ("none", "dropout")]
    assert drawn[0][2:] == drawn[1][2:]


def test_optuna_reads_objectives_and_states(make_store: MakeStore, tmp_path: Path) -> None:
    feed = make_feed(make_store())
    for state in ("COMPLETE", "PRUNED", "FAIL"):
        spec = ask(feed)
        feed.tell([ended(spec, state, reason="x")])
    study = optuna.load_study(study_name="s/dropout", storage=open_storage(None, tmp_path / "study.journal"))
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert study.trials[0].value == pytest.approx(study.trials[0].params["lr"])


def test_interrupted_trial_is_asked_again_unchanged(make_store: MakeStore) -> None:
    feed = make_feed(make_store())
    work(feed, 2)
    spec = ask(feed)
    feed.tell([ended(spec, "FAIL", reason=INTERRUPTED)])
    again = work(make_feed(make_store()))
    assert (again[0].seed, again[0].params) == (spec.seed, spec.params)
    assert len(again) == 3
    assert len({result.spec.seed for result in make_store().results()}) == 5


def _in_another_process(folder: Path, code: str) -> None:
    """Run code with a feed over the same storage in a process that then dies without closing anything."""
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; "
        "from dropsearch.study.store import StudyStore; from dropsearch.study.storage import open_storage; "
        "from tests.study.conftest import ask, make_feed, ended; "
        "storage = open_storage(None, Path(sys.argv[1]) / 'study.journal'); "
        "store = StudyStore(storage, 's/dropout', arm='dropout', phase='search', "
        "fingerprint={'seed': 0, 'sites': ['a', 'b']}); feed = make_feed(store); " + code + "; os._exit(9)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, str(folder), str(root)], check=False)
    assert done.returncode == 9


@pytest.mark.slow
def test_trial_of_a_dead_process_fails_and_is_asked_again(make_store: MakeStore, tmp_path: Path) -> None:
    _in_another_process(tmp_path, "feed.tell([ended(ask(feed))]); feed.ask(1)")
    left = make_store().study.trials[1]
    assert left.state.name == "RUNNING"
    work(make_feed(make_store()))
    trials = make_store().study.trials
    assert trials[1].state.name == "FAIL"
    assert trials[2].params == left.params
    assert len(make_store().results()) == 5
    assert not [t for t in trials if t.state.name in ("RUNNING", "WAITING")]


@pytest.mark.slow
def test_ended_trial_of_a_dead_process_keeps_its_result(make_store: MakeStore, tmp_path: Path) -> None:
    _in_another_process(
        tmp_path,
        "spec = ask(feed); "
        "from dropsearch.study import trial_entry; "
        "storage.set_trial_user_attr(0, trial_entry.RESULT, trial_entry.written(ended(spec)))",
    )
    work(make_feed(make_store()))
    assert [t.state.name for t in make_store().study.trials] == ["COMPLETE"] * 5


def test_trial_of_a_live_process_is_not_taken(make_store: MakeStore, as_parent: AsParent) -> None:
    with as_parent():
        neighbour = make_feed(make_store())
        spec = ask(neighbour)
    ours = make_store()
    assert len(work(make_feed(ours))) == 4
    assert len(ours.running_elsewhere()) == 1
    neighbour.tell([ended(spec)])
    assert len(make_store().results()) == 5
    assert ours.running_elsewhere() == ()


def test_abandoned_trial_of_this_process_is_asked_again(make_store: MakeStore) -> None:
    spec = ask(make_feed(make_store()))
    again = work(make_feed(make_store()))
    assert (again[0].seed, again[0].params) == (spec.seed, spec.params)
    assert len(again) == len(make_store().results()) == 5


def test_later_of_two_claims_withdraws(make_store: MakeStore, as_parent: AsParent) -> None:
    ours, theirs = make_feed(make_store()), make_feed(make_store())
    trial_keys = theirs._next

    def slow(count: int) -> list[TrialKey]:
        """Look for a free place, and let a neighbour take it before anything is written."""
        found = trial_keys(count)
        theirs._next = trial_keys  # type: ignore[method-assign]
        with as_parent():
            taken.append(ask(ours))
        return found

    taken: list[TrialSpec] = []
    theirs._next = slow  # type: ignore[method-assign]
    got = ask(theirs)
    assert taken[0].seed == trial_seed(0, 0)
    assert got.seed == trial_seed(0, 1)
    ours.tell([ended(taken[0])])
    theirs.tell([ended(got)])
    work(theirs)
    assert sorted(r.spec.seed for r in make_store().results()) == sorted(trial_seed(0, i) for i in range(5))


def test_silent_remote_process_loses_its_trials(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("dropsearch.core.processes.this_process", lambda: "elsewhere:1:1")
        sleeper = make_feed(make_store())
        spec = ask(sleeper)
    feed = make_feed(make_store())
    assert len(work(feed)) == 4
    monkeypatch.setattr("dropsearch.study.known_trials.SILENCE", 0.0)
    assert [again.seed for again in work(feed)] == [spec.seed]
    with pytest.raises(RunError, match="was ended by another process"):
        sleeper.tell([ended(spec)])
    assert len(make_store().results()) == 5


def test_concurrently_written_state_is_kept(make_store: MakeStore, tmp_path: Path) -> None:
    feed = make_feed(make_store())
    spec = ask(feed)
    neighbour = open_storage(None, tmp_path / "study.journal")
    neighbour.set_trial_user_attr(0, trial_entry.RESULT, trial_entry.written(ended(spec)))
    neighbour.set_trial_state_values(0, TrialState.COMPLETE, [spec.lr])
    feed.tell([ended(spec)])
    assert make_store().results() == (ended(spec),)


@pytest.mark.parametrize("foreign", [{"state": "COMPLETE"}, "{", '"text"', "[]", "{}", 3, None])
def test_a_result_of_another_program_is_refused(make_store: MakeStore, tmp_path: Path, foreign: object) -> None:
    ask(make_feed(make_store()))
    neighbour = open_storage(None, tmp_path / "study.journal")
    neighbour.set_trial_user_attr(0, trial_entry.RESULT, foreign)
    neighbour.set_trial_state_values(0, TrialState.COMPLETE, [1.0])
    with pytest.raises(InputError, match="trial 0 of the study must have a result of this version") as caught:
        make_store()
    assert "\n" not in str(caught.value)


def test_untracked_results_of_dead_processes_only(make_store: MakeStore, as_parent: AsParent, tmp_path: Path) -> None:
    _in_another_process(tmp_path, "feed.tell([ended(ask(feed))])")
    with as_parent():
        work(make_feed(make_store()), 2)
    work(make_feed(make_store()), 1)
    assert [result.spec.number for result in make_store().untracked_results()] == [0, 3]


def test_continued_study_equals_uninterrupted_study(
    make_store: MakeStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    storage = open_storage(None, tmp_path_factory.mktemp("other") / "study.journal")
    whole = StudyStore(
        storage, "s/dropout", arm="dropout", phase="search", fingerprint={"seed": 0, "sites": ["a", "b"]}
    )
    for _ in range(3):
        work(make_feed(make_store()), 2)
    assert [r.spec.params for r in make_store().results()] == [s.params for s in work(make_feed(whole))]


def test_failing_storage_raises_one_line(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = make_feed(make_store())
    spec = ask(feed)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match=r"storage of study s/dropout failed .*No space left on device") as caught:
        feed.tell([ended(spec)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_journal_that_is_taken_away_ends_the_run(make_store: MakeStore, tmp_path: Path, how: str) -> None:
    feed, path = make_feed(make_store()), tmp_path / "study.journal"
    spec, kept = ask(feed), path.read_bytes()
    path.rename(tmp_path / "kept.journal")
    if how == "replaced":
        path.write_bytes(kept)
    with pytest.raises(RunError, match="was deleted, renamed or replaced while the run used it"):
        feed.tell([ended(spec)])
    assert path.exists() is (how == "replaced"), "no new journal that lacks all before"


def test_a_disk_that_is_full_at_the_first_write_is_named(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("optuna.storages.journal.JournalFileBackend.append_logs", full)
    with pytest.raises(RunError, match=r"failed .*No space left on device"):
        make_store()


def test_study_of_another_configuration_is_rejected(make_store: MakeStore, tmp_path: Path) -> None:
    work(make_feed(make_store()))
    with pytest.raises(InputError, match=r"seed must be the same as when study s/dropout began \(0\), got 1"):
        make_store(seed=1)
    storage = open_storage(None, tmp_path / "study.journal")
    with pytest.raises(InputError, match="sites must be"):
        check_studies(storage, {"s/dropout": {"seed": 0, "sites": ["a"]}})


def test_foreign_study_is_rejected(make_store: MakeStore, tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path / "study.journal")
    optuna.create_study(storage=storage, study_name="s/dropout").add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(InputError, match="another study"):
        make_store()


def test_five_equal_failures_stop_the_run(make_store: MakeStore) -> None:
    feed = make_feed(make_store(), total=9)
    for _ in range(4):
        feed.tell([ended(ask(feed), "FAIL", reason="diverged: val_loss=nan")])
    feed.tell([ended(ask(feed), "FAIL", reason="diverged: val_loss=inf")])
    assert len(make_store().results()) == 5
    with pytest.raises(RunError, match="first 5 trials of arm dropout all failed for the same reason"):
        feed.ask(1)


def test_equal_failures_do_not_stop_while_a_trial_is_healthy(make_store: MakeStore) -> None:
    feed = make_feed(make_store(), total=9)
    well = ask(feed)
    assert feed.report([(well, EpochMetrics(0, 1.0, 1.0, 1.0))]) == [False]
    for _ in range(5):
        feed.tell([ended(ask(feed), "FAIL", reason="diverged: val_loss=nan")])
    assert feed.ask(1)
    feed.tell([ended(well, "FAIL", reason="diverged: val_loss=nan")])
    with pytest.raises(RunError, match="first 6 trials of arm dropout all failed for the same reason"):
        feed.ask(1)


def test_different_failures_do_not_stop_the_run(make_store: MakeStore) -> None:
    feed = make_feed(make_store(), total=6)
    for index in range(6):
        feed.tell([ended(ask(feed), "FAIL", reason=f"reason {index}: x")])
    assert not feed.ask(1)


@pytest.mark.parametrize(("reason", "again"), [("OSError: no device", [1, 3]), ("diverged: val_loss=nan", [])])
def test_failed_trials_are_trained_again_on_request(make_store: MakeStore, reason: str, again: list[int]) -> None:
    feed = make_feed(make_store())
    first = feed.ask(5)
    feed.tell([ended(spec, "FAIL", reason) if index in (1, 3) else ended(spec) for index, spec in enumerate(first)])
    assert not make_feed(make_store()).ask(5)

    retrying = SearchFeed(make_store(), make_space(), total=5, seed=0, cancelled=lambda: False, retry_failed=True)
    second = retrying.ask(5)
    assert [(spec.seed, spec.params) for spec in second] == [(first[i].seed, first[i].params) for i in again]
    retrying.tell([ended(spec) for spec in second])
    assert [result.state for result in make_store().results()].count("COMPLETE") == 3 + len(again)
    assert len(make_store().results()) == 5


def test_partial_last_journal_line_is_truncated(make_store: MakeStore, tmp_path: Path) -> None:
    work(make_feed(make_store()), 2)
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 8, "wor')
    assert len(make_store().results()) == 2
    assert len(work(make_feed(make_store()))) == 3
    assert all(json.loads(line) for line in (tmp_path / "study.journal").read_text().splitlines())


def test_partial_journal_line_does_not_corrupt_later_lines(make_store: MakeStore, tmp_path: Path) -> None:
    feed = make_feed(make_store())
    work(feed, 2)
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 8, "wor')
    assert len(work(feed)) == 3
    assert len(make_store().results()) == 5


def test_study_ids_are_unique_across_storages(tmp_path: Path) -> None:
    def ids(folder: str, *arms: str, name: str = "s") -> set[str]:
        storage = open_storage(None, tmp_path / folder / "study.journal")
        for arm in arms:
            StudyStore(storage, f"{name}/{arm}", arm=arm, phase="search", fingerprint={})
        return {identity(storage, name)}

    first = ids("one", "none", "dropout")
    for _ in range(5):
        assert ids("one", "both", "typical", "none") == first
    assert ids("one", "none", name="s/none") != first
    assert ids("two", "none") != first
    (tmp_path / "one").rename(tmp_path / "three")
    assert ids("three", "dropout") == first


@pytest.mark.parametrize("content", [b"not a journal\n", b"\x00\x01\x02", b'{"a": 1}\n', b"SQLite format 3\x00"])
def test_file_that_is_not_a_journal_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(InputError, match="journal file that Optuna wrote"):
        open_storage(str(path), tmp_path / "unused")
    assert path.read_bytes() == content


def test_invalid_url_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"study.storage must lie in a folder"):
        open_storage(f"sqlite:///{tmp_path}/missing/folder/x.db", tmp_path / "unused")
    (tmp_path / "x.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(InputError, match="not a database"):
        open_storage(f"sqlite:///{tmp_path}/x.db", tmp_path / "unused")


def test_sqlite_storage(tmp_path: Path) -> None:
    for done in (2, 3):
        storage = open_storage(f"sqlite:///{tmp_path}/study.db", tmp_path / "unused")
        store = StudyStore(storage, "s/dropout", arm="dropout", phase="search", fingerprint={"seed": 0})
        assert len(work(make_feed(store), done)) == done
        storage.engine.dispose()  # type: ignore[attr-defined]
    assert os.path.exists(tmp_path / "study.db")


def confirm(make_store: MakeStore, stands: Callable[[TrialResult], bool] = lambda _: True) -> ConfirmFeed:
    best = best_configurations(make_store().results(), 2)
    store = make_store("confirm")
    release_invalid(store, lambda result: not may_succeed(result) and stands(result))
    trial_keys = planned_retrainings(best, store.results(), confirmation_seeds(0, 3), 3)
    return ConfirmFeed(store, make_space(), best, trial_keys, cancelled=lambda: False)


def test_best_configurations_are_retrained_with_the_same_seeds(make_store: MakeStore) -> None:
    searched = work(make_feed(make_store()))
    retrained = work(confirm(make_store))  # type: ignore[arg-type]
    assert len(retrained) == 6
    assert {spec.seed for spec in retrained}.isdisjoint({spec.seed for spec in searched})
    rates = {spec.number: spec.rates for spec in searched}
    assert all(spec.configuration is not None and spec.rates == rates[spec.configuration] for spec in retrained)


def test_interrupted_confirmation_continues(make_store: MakeStore) -> None:
    work(make_feed(make_store()))
    work(confirm(make_store), 2)  # type: ignore[arg-type]
    assert len(work(confirm(make_store))) == 4  # type: ignore[arg-type]
    assert not confirm(make_store).ask(1)
    assert len(work(confirm(make_store, stands=lambda _: False))) == 6  # type: ignore[arg-type]


def fail_first(feed: ConfirmFeed, reason: str, times: int) -> list[TrialSpec]:
    """Train all that a feed has; the first retraining of each place fails so many times."""
    asked: list[TrialSpec] = []
    first: tuple[int | None, int] | None = None
    while specs := feed.ask(1):
        (spec,) = specs
        asked.append(spec)
        first = first or (spec.configuration, spec.seed)
        fails = (spec.configuration, spec.seed) == first and len(asked) <= times
        feed.tell([ended(spec, "FAIL", reason=reason) if fails else ended(spec)])
        if fails and times > 1 and len(asked) < times:
            again = feed.ask(1)
            assert [(s.configuration, s.seed) for s in again] == [first]
            asked += again
            feed.tell([ended(again[0], "FAIL", reason=reason)])
    return asked


def test_failed_retraining_is_retried_in_the_same_run(make_store: MakeStore) -> None:
    work(make_feed(make_store()))
    asked = fail_first(confirm(make_store), "OSError: connection reset", 1)
    assert len(asked) == 7
    results = make_store("confirm").results()
    assert [result.state for result in results] == ["COMPLETE"] * 6
    best = best_configurations(make_store().results(), 2)
    assert len(confirmed_configurations(best, results, confirmation_seeds(0, 3))[0].results) == 3


def test_retraining_that_fails_twice_waits_for_the_next_run(make_store: MakeStore) -> None:
    work(make_feed(make_store()))
    asked = fail_first(confirm(make_store), "OSError: connection reset", 2)
    assert len(asked) == 7
    assert sorted(result.state for result in make_store("confirm").results()) == ["COMPLETE"] * 5 + ["FAIL"]
    assert len(work(confirm(make_store))) == 1  # type: ignore[arg-type]
    assert {result.state for result in make_store("confirm").results()} == {"COMPLETE"}


def test_diverged_retraining_is_not_retried(make_store: MakeStore) -> None:
    work(make_feed(make_store()))
    asked = fail_first(confirm(make_store), "diverged: val_loss=nan after epoch 2", 1)
    assert len(asked) == 6
    assert not confirm(make_store).ask(1)


def test_winner_has_the_best_mean(make_store: MakeStore) -> None:
    work(make_feed(make_store()))
    work(confirm(make_store))  # type: ignore[arg-type]
    best = best_configurations(make_store().results(), 2)
    confirmed = confirmed_configurations(best, make_store("confirm").results(), confirmation_seeds(0, 3))
    assert [c.number for c in confirmed] == [b.spec.number for b in best]
    won = winner(confirmed, 3)
    assert won is not None
    assert won.mean_val_loss == min(c.mean_val_loss for c in confirmed)
    assert winner(confirmed, 4) is None
