"""What a study and MLflow hold, read with Optuna's and MLflow's own means, and the laws that both must keep."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

NAME = "mlp-digits"
STATUSES = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}

Key = tuple[str, int]
"""Study and number."""


def open_storage(storage: str) -> Any:
    """Open a storage as anybody would who knows Optuna and nothing of this project."""
    if "://" in storage:
        return optuna.storages.RDBStorage(storage)
    return JournalStorage(JournalFileBackend(storage))


def _there(storage: str) -> bool:
    if storage.startswith("postgresql"):
        return True
    path = Path(storage.removeprefix("sqlite:///"))
    return path.exists() and path.stat().st_size > 0


def studies(storage: str) -> dict[str, optuna.Study]:
    """Return the studies of a storage by name; none where it is not there yet."""
    if not _there(storage):
        return {}
    opened = open_storage(storage)
    try:
        return {name: optuna.load_study(study_name=name, storage=opened) for name in optuna.get_all_study_names(opened)}
    except ValueError:
        return {}  # half a first line


def ended(storage: str) -> dict[Key, FrozenTrial]:
    """Return the trials that ended and were not interrupted."""
    return {(study.study_name, t.number): t for study in studies(storage).values() for t in _counting(study)}


def _counting(study: optuna.Study) -> Iterator[FrozenTrial]:
    notes = study.user_attrs
    for trial in study.trials:
        if not trial.state.is_finished() or f"interrupted.{trial.number}" in notes:
            continue
        if result_of(trial)["reason"] != "interrupted":
            yield trial


def result_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return what a trial says of its result."""
    return json.loads(trial.user_attrs["result"])


def check_nothing_changed(before: dict[Key, FrozenTrial], after: dict[Key, FrozenTrial]) -> None:
    """Every trial that had ended is there, in all that Optuna knows of it."""
    for key, trial in before.items():
        assert key in after, f"{key} is lost"
        was, now = vars(trial), vars(after[key])
        assert {k: repr(v) for k, v in was.items()} == {k: repr(v) for k, v in now.items()}, f"{key} has changed"


def check_totals(storage: str, arms: list[str], n_trials: int, top_k: int, seeds: int, repeats: int = 1) -> None:
    """Each arm has its trials and its confirmations, each once, and nothing is left open."""
    found = studies(storage)
    searches = ["", *(f"/repeat-{number}" for number in range(2, repeats + 1))]
    assert set(found) == {f"{NAME}/{arm}{kind}" for arm in arms for kind in (*searches, "/confirm")}
    for study in found.values():
        open_ones = [t.number for t in study.trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
        assert not open_ones, f"{study.study_name}: {open_ones} are still open"
    for arm in arms:
        for search in searches:
            indices = sorted(t.user_attrs["index"] for t in _counting(found[f"{NAME}/{arm}{search}"]))
            assert indices == list(range(n_trials)), (arm, search, indices)
        complete = [t for t in _counting(found[f"{NAME}/{arm}"]) if t.state == TrialState.COMPLETE]
        best = {t.number for t in sorted(complete, key=lambda t: t.value)[:top_k]}  # type: ignore[arg-type, return-value]
        pairs = Counter(
            (t.user_attrs["configuration"], t.user_attrs["seed"]) for t in _counting(found[f"{NAME}/{arm}/confirm"])
        )
        assert set(pairs.values()) == {1}, (arm, pairs)
        mine = [seed for number, seed in pairs if number in best]
        assert Counter(mine) == Counter({seed: len(best) for seed in mine}), (arm, pairs)
        assert len(mine) == len(best) * seeds, (arm, pairs)


def check_mlflow(uri: str, storage: str) -> None:
    """Each ended trial has exactly one run, which says what the study says; no run is open or without its parent."""
    from mlflow import MlflowClient

    client = MlflowClient(uri, uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = {run.info.run_id: run for run in client.search_runs(experiments, max_results=10_000)}
    assert [r.info.run_name for r in runs.values() if r.info.status == "RUNNING"] == []
    for run in runs.values():
        kind, parent = run.data.tags["dropsearch.kind"], run.data.tags.get("mlflow.parentRunId")
        assert parent in runs if kind != "parent" else parent is None, (run.info.run_name, parent)
    trials = {_run_key(key): trial for key, trial in ended(storage).items()}
    tracked = [r for r in runs.values() if r.data.tags["dropsearch.kind"] == "trial"]
    found, wanted = Counter(r.data.tags["dropsearch.key"] for r in tracked), Counter(trials.keys())
    assert found == wanted, f"too many runs: {found - wanted}, too few: {wanted - found}"
    for run in tracked:
        result = result_of(trials[run.data.tags["dropsearch.key"]])
        assert run.info.status == STATUSES[result["state"]]
        history = client.get_metric_history(run.info.run_id, "val_loss")
        curve = {epoch: val_loss for epoch, _, _, val_loss, *_ in result["curve"]}
        assert {point.step: point.value for point in history} == curve, run.info.run_name
        assert len(history) == len(curve)
        assert float(run.data.params["lr"]) == result["spec"]["lr"]
        assert run.data.metrics["dropsearch/epochs"] == len(curve)


def _run_key(key: Key) -> str:
    study, number = key
    return f"{study.removeprefix(f'{NAME}/')}/{number}"


def check_results(path: Path, storage: str | None = None) -> None:
    """results.json is whole; with a storage, it says what the study says."""
    if storage is None and not path.exists():
        return
    found = json.loads(path.read_text())
    assert {"study", "arms", "comparisons", "seed"} <= set(found)
    if storage is None:
        return
    assert found["complete"]
    trials = ended(storage)
    for arm, outcome in found["arms"].items():
        told = {t["number"]: (t["state"], t["val_loss"]) for t in outcome["trials"]}
        kept = {n: t for (study, n), t in trials.items() if study == f"{NAME}/{arm}"}
        assert {n: state for n, (state, _) in told.items()} == {n: t.state.name for n, t in kept.items()}
        for number, (state, loss) in told.items():
            assert state != "COMPLETE" or loss == kept[number].value
        assert outcome["winner"] is not None
        assert (path.parent / "best" / f"{arm}.ckpt").exists()


def check_everything(
    folder: Path, storage: str, arms: list[str], n_trials: int, top_k: int, seeds: int, repeats: int = 1
) -> None:
    """All of the above, for a study that has come to its end; MLflow where it was used."""
    check_totals(storage, arms, n_trials, top_k, seeds, repeats)
    check_results(folder / "results.json", storage)
    if (folder / "mlflow.db").exists():
        check_mlflow(f"sqlite:///{folder}/mlflow.db", storage)
