"""Each number of a run is the same in MLflow, results.json, best/, Optuna, `SearchResult` and the reports.

Each place makes claims: what a number describes, and the number. Two places that make the same claim agree.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from optuna.storages.journal import JournalFileBackend

from dropsearch.api.result import SearchResult
from dropsearch.report.tables.arms import brief_tables, tables
from dropsearch.study.search_space import STEP, Space
from tests.experiment.conftest import LIGHT, in_this_process
from tests.little_example import little_example

SMALL = (
    *(each for each in LIGHT if not each.startswith(("tracking", "confirm"))),
    "tracking.log_model=false", "confirm.top_k=2", "confirm.seeds=2", "output_dir=out",
)  # fmt: skip
USERS = ("model._target_=user_module.LitNet", "data._target_=user_module.Digits", "monitor=val_acc", "mode=max")
CASES = {
    "a rate a layer, an arm without dropout": (*SMALL, "arms=[none,dropout,batchnorm,both,dropout_shared]"),
    "depth, other values, a user module": (
        *(each for each in SMALL if not each.startswith(("model", "data."))), *USERS, "arms=[none,dropout]",
        "space=depth", "space.params={model.width: choice(8,12)}", "study.storage=sqlite:///study.db",
    ),
    "step, budget, warm start": (
        *SMALL, "space=step", "arms=[dropout,both]", "budget=20 trials", "study.warm_start=earlier",
    ),
}  # fmt: skip
Claim = tuple[str, ...]
Told = Iterator[tuple[Claim, Any]]


@dataclass(frozen=True)
class Ran:
    folder: Path
    printed: str
    monitor: str
    mode: str
    form: str
    """The form of the rates: a group `space`."""

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def results(self) -> dict[str, Any]:
        return json.loads((self.out / "results.json").read_text())


@pytest.fixture(scope="module", params=CASES)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mlflow_tables: None) -> Ran:
    folder, given = tmp_path_factory.mktemp("numbers"), CASES[request.param]
    (folder / "user_module.py").write_text(little_example())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        if "without dropout" in request.param:
            patch.setattr("dropsearch.study.search_space.Space.first_points", property(never_drops(Space.first_points)))
        if "warm start" in request.param:
            one = (*given[:-2], "output_dir=earlier", "study.name=earlier", "study.n_trials=2", "tracking=none")
            status, printed = in_this_process(folder, *one)
            assert status == 0, printed
        status, printed = in_this_process(folder, *given)
    assert status == 0, printed
    monitor = next((each[8:] for each in given if each.startswith("monitor=")), "val_loss")
    form = next((each[6:] for each in given if each.startswith("space=")), "per_layer")
    return Ran(folder, printed, monitor, "max" if "mode=max" in given else "min", form)


def never_drops(first_points: Any) -> Callable[[Space], Any]:
    """Return first points that are without dropout in the arm dropout."""
    return lambda space: (space._zero_point(),) * 3 if space.arm.name == "dropout" else first_points.fget(space)


def by_results(ran: Ran) -> Told:
    for arm, found in ran.results["arms"].items():
        for trial in found["trials"]:
            of = ("trial", arm, str(trial["number"]))
            yield from (((*of, "params", name), value) for name, value in trial["params"].items())
            yield from of_trial(of, trial, trial["monitored"], trial["hyperparameters"], trial["rates"])
        winner, best = found["winner"], found["best"]
        yield ("best", arm), best["monitored"]
        yield ("confirmed", arm), winner["mean_val_loss"]
        yield ("test acc", arm), winner["mean_test_acc"]
        yield ("chosen trial", arm), f"{winner['arm']}/{winner['number']}"
        yield from ((("chosen", arm, f"rate.{site}"), rate) for site, rate in winner["rates"].items())
        yield from ((("chosen", arm, key), value) for key, value in winner["hyperparameters"].items())
        chosen = ran.results["arms"][winner["arm"]]["trials"][winner["number"]]
        yield from ((("chosen", arm, key), chosen[key]) for key in ("lr", "weight_decay"))
        yield from ((("count", arm, state), count) for state, count in found["states"].items())


def of_trial(of: Claim, row: Any, monitored: Any, hyperparameters: Any, rates: Any) -> Told:
    yield from (((*of, key), row[key]) for key in ("state", "lr", "weight_decay", "seed", "epochs"))
    yield (*of, "monitored"), monitored
    yield from (((*of, key), value) for key, value in hyperparameters.items())
    yield from (((*of, f"rate.{site}"), rate) for site, rate in rates.items())


def by_optuna(ran: Ran) -> Told:
    """As somebody reads the storage who knows Optuna alone."""
    database = ran.folder / "study.db"
    journal = JournalFileBackend(str(ran.out / "study.journal"))
    storage: Any = f"sqlite:///{database}" if database.exists() else optuna.storages.JournalStorage(journal)
    sign = -1 if ran.mode == "max" else 1
    for arm in ran.results["arms"]:
        study = optuna.load_study(study_name=f"{ran.results['study']}/{arm}", storage=storage)
        for trial in study.trials:
            of = ("trial", arm, str(trial.number))
            yield from (((*of, "params", name), value) for name, value in trial.params.items())
            yield (*of, "state"), trial.state.name
            yield (*of, "lr"), trial.params["lr"]
            if trial.state.name == "COMPLETE":
                yield (*of, "monitored"), sign * trial.values[0]
        yield ("best", arm), sign * study.best_value
        winner = ran.results["arms"][arm]["winner"]
        retrained = optuna.load_study(study_name=f"{ran.results['study']}/{winner['arm']}/confirm", storage=storage)
        values = [t.values[0] for t in retrained.trials if t.user_attrs["configuration"] == winner["number"]]
        yield ("confirmed", arm), sign * sum(values) / len(values)


def client_of(ran: Ran) -> MlflowClient:
    return MlflowClient(f"sqlite:///{ran.out / 'mlflow.db'}")


def by_mlflow(ran: Ran) -> Told:
    client = client_of(ran)
    (parent,) = [each for each in runs_of(client) if each.data.tags["dropsearch.kind"] == "parent"]
    for run in runs_of(client):
        tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
        arm = tags.get("dropsearch.arm", "")
        if tags["dropsearch.kind"] == "trial" and tags["dropsearch.phase"] == "search":
            row = {**params, "state": tags["dropsearch.state"], "epochs": metrics["dropsearch/epochs"]}
            others = {key: value for key, value in params.items() if key.startswith(("model.", "optimizer."))}
            rates = {key[5:]: value for key, value in params.items() if key.startswith("rate.")}
            best = metrics.get(f"dropsearch/{ran.monitor}_best")
            yield from of_trial(("trial", arm, params["number"]), row, best, others, rates)
        if tags["dropsearch.kind"] == "arm":
            yield from scores(("dropsearch/{}", metrics), arm, ran.monitor)
            yield from scores((f"dropsearch/{arm}/{{}}", parent.data.metrics), arm, ran.monitor)
            yield from ((("count", arm, s), metrics[f"dropsearch/trials_{s.lower()}"]) for s in STATES)
            for held, prefix in ((params, "chosen_"), (parent.data.params, f"{arm}.chosen_")):
                yield ("chosen trial", arm), held[f"{prefix}trial"]
                names = [key.removeprefix(prefix) for key in held if key.startswith(prefix)]
                yield from ((("chosen", arm, name), held[prefix + name]) for name in names if name != "trial")


STATES = ("COMPLETE", "PRUNED", "FAIL")


def scores(held: tuple[str, dict[str, float]], arm: str, monitor: str) -> Told:
    place, metrics = held
    names = {"best": f"{monitor}_best", "confirmed": f"{monitor}_confirmed", "test acc": "test_acc"}
    for claim, name in names.items():
        if place.format(name) in metrics:
            yield (claim, arm), metrics[place.format(name)]


def runs_of(client: MlflowClient) -> list[Any]:
    ids = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(ids, max_results=1000))


def by_api(ran: Ran) -> Told:
    result = SearchResult.load(ran.out)
    for row in result.trials_dataframe().astype(object).to_dict("records"):
        others = {key: value for key, value in row.items() if key.startswith(("model.", "optimizer.", "rate."))}
        known = {key: value for key, value in others.items() if value == value}
        yield from of_trial(("trial", row["arm"], str(row["number"])), row, row[ran.monitor], known, {})
    for arm in result.summary.arms:
        yield from ((("chosen", arm, f"rate.{site}"), rate) for site, rate in result.rates(arm).items())
    best = result.best_arm or ""
    for name, value in (("lr", result.best_lr), ("weight_decay", result.best_weight_decay)):
        yield ("chosen", best, name), value
    yield from ((("chosen", best, key), value) for key, value in result.best_params.items())
    yield from ((("chosen", best, f"rate.{site}"), rate) for site, rate in result.best_rates.items())


def by_files(ran: Ran) -> Told:
    """The configurations that retrain the winners."""
    for path in (ran.out / "best").glob("*.yaml"):
        given = yaml.safe_load(path.read_text())["retrain"]
        yield from ((("chosen", path.stem, key), given[key]) for key in ("lr", "weight_decay"))
        yield from ((("chosen", path.stem, key), value) for key, value in given["params"].items())
        yield from ((("chosen", path.stem, f"rate.{site}"), rate) for site, rate in given["rates"].items())


PLACES: tuple[Callable[[Ran], Told], ...] = (by_results, by_optuna, by_mlflow, by_api, by_files)


def value_of(told: Any) -> Any:
    """Return a number as one, also where it is text: MLflow's parameters are."""
    if isinstance(told, str):
        try:
            told = json.loads(told)
        except ValueError:
            return told
    if isinstance(told, list | tuple):
        return [value_of(each) for each in told]
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else told


def is_same(one: Any, other: Any) -> bool:
    return one == other or (isinstance(one, float) and one == pytest.approx(other, rel=1e-12))


def test_a_number_is_the_same_in_every_place(ran: Ran) -> None:
    claims: dict[Claim, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for place in PLACES:
        for claim, value in place(ran):
            claims[claim][place.__name__].append(value_of(value))
    for claim, places in claims.items():
        values = [value for told in places.values() for value in told]
        assert all(is_same(each, values[0]) for each in values), f"{claim}: {dict(places)}"
    told_by = {kind: set().union(*(places for claim, places in claims.items() if claim[0] == kind)) for kind in KINDS}
    assert told_by == KINDS, "each place makes every kind of claim that it should"
    alone = [claim for claim, places in claims.items() if len(places) < 2]
    assert alone == [], "and no claim by one place alone, under a name of its own"


KINDS = {
    "trial": {"by_results", "by_optuna", "by_mlflow", "by_api"},
    "best": {"by_results", "by_optuna", "by_mlflow"},
    "confirmed": {"by_results", "by_optuna", "by_mlflow"},
    "chosen": {"by_results", "by_mlflow", "by_api", "by_files"},
    "chosen trial": {"by_results", "by_mlflow"},
    "count": {"by_results", "by_mlflow"},
}


def test_rates_are_stored_as_people_read_them(ran: Ran) -> None:
    for (kind, *_, name), value in by_optuna(ran):
        if kind == "trial" and name.startswith("rate."):
            assert 0 <= value <= 0.9, name


def test_the_rates_of_a_trial_follow_from_its_parameters(ran: Ran) -> None:
    for arm in set(ran.results["arms"]) & {"dropout", "both"}:
        for trial in ran.results["arms"][arm]["trials"]:
            params, rates = trial["params"], [*trial["rates"].values()]
            assert rates == pytest.approx(FORMS[ran.form](params, [*trial["rates"]]))


FORMS: dict[str, Callable[[Any, list[str]], list[float]]] = {
    "per_layer": lambda params, sites: [params[f"rate.{site}"] for site in sites],
    "shared": lambda params, sites: [params["rate.shared"]] * len(sites),
    "step": lambda params, sites: [
        params["rate.first"] if place < params[STEP] else 0.0 for place in range(len(sites))
    ],
    "depth": lambda params, sites: [
        params["rate.first"] + (params["rate.last"] - params["rate.first"]) * place / (len(sites) - 1)
        for place in range(len(sites))
    ],
}


def test_all_pairs_of_arms_are_planned(ran: Ran) -> None:
    arms = [arm for arm in ran.results["arms"] if arm in ("none", "dropout", "batchnorm", "both")]
    planned = [frozenset((each["a"], each["b"])) for each in ran.results["comparisons"]]
    assert {frozenset(pair) for pair in itertools.combinations(arms, 2)} <= set(planned)
    assert len(set(planned)) == len(planned)


def test_reports_and_terminal_have_the_cells_of_the_tables(ran: Ran) -> None:
    summary = SearchResult.load(ran.out).summary
    html = (ran.out / "report.html").read_text()
    pages = {"html": unescape(re.sub(r"<[^>]*>", "", html)), "markdown": (ran.out / "report.md").read_text()}
    for table in tables(summary):
        for cell in itertools.chain(*table.rows):
            for name, text in pages.items():
                assert cell in text.replace("\\", ""), (name, cell)
    for table in brief_tables(summary):
        assert all(cell in ran.printed for row in table.rows for cell in row)
    said = " ".join(ran.printed.split())
    notes = [run.data.tags.get("mlflow.note.content", "") for run in runs_of(client_of(ran))]
    told = "".join(notes).replace("\\", "")
    assert all(" ".join(sentence.split()) in told for sentence in ran.results["warnings"])
    assert all(" ".join(sentence.split()) in said for sentence in (*ran.results["answer"], *ran.results["warnings"]))
