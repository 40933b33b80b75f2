"""A search that begins with the best configurations of an earlier one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest

from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialResult
from dropsearch.experiment.context import build_context
from dropsearch.experiment.tasks import run
from dropsearch.report.results import load_summary
from dropsearch.study.selection import best_configurations
from dropsearch.study.storage import open_storage
from tests.experiment.conftest import LIGHT, Cli, Ended, composed

SMALL = (*LIGHT, "arms=[none,dropout]", "confirm.top_k=1", "confirm.seeds=1", "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of a finished run."""
    out = tmp_path_factory.mktemp("earlier") / "out"
    assert run(composed(*SMALL, f"output_dir={out}")) == 0
    return out


def searched(out: Path, *overrides: str) -> Path:
    assert run(composed(*SMALL, f"output_dir={out}", "study.name=new", *overrides)) == 0
    return out


@pytest.fixture(scope="module")
def grown(earlier: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Two runs that begin with the best of `earlier`, and its place: one goes on after the place is gone."""
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(earlier, folder / "other")
    given = f"study.warm_start={folder}/other"
    whole = searched(folder / "whole", given, "study.n_trials=5")
    parts = searched(folder / "parts", given, "study.n_trials=2")
    shutil.rmtree(folder / "other")
    return whole, searched(parts, given, "study.n_trials=5"), given


def trials(out: Path, arm: str) -> list[TrialResult]:
    return [*load_summary(out).arms[arm].trials]


def settings(trials: list[TrialResult]) -> list[Any]:
    return [(each.spec.lr, each.spec.weight_decay, each.spec.rates) for each in trials]


def best_first(out: Path, arm: str) -> list[Any]:
    """Return the settings of an arm's trials, best first, without those that every search tries first."""
    proposed = [each for each in trials(out, arm) if each.spec.number >= (1 if arm == "none" else 2)]
    return settings([*best_configurations(proposed, 99)])


def test_first_trials_are_the_earlier_best_ones(earlier: Path, grown: tuple[Path, Path, str]):
    whole, _, given = grown
    assert settings(trials(whole, "none"))[1:3] == best_first(earlier, "none")
    (best,) = best_first(earlier, "dropout")
    assert settings(trials(whole, "dropout"))[2] == best
    none, dropout = ([each.spec.seed for each in trials(whole, arm)] for arm in ("none", "dropout"))
    assert none == dropout
    assert f"include the best settings of {given.partition('=')[2]}, trained anew" in (whole / "report.md").read_text()


def test_it_continues_without_the_earlier_study(grown: tuple[Path, Path, str]):
    whole, parts, _ = grown
    for arm in ("none", "dropout"):
        assert settings(trials(parts, arm)) == settings(trials(whole, arm))
    with pytest.raises(InputError, match=r"study\.warm_start must be the same as when study new/none began"):
        searched(parts, "study.n_trials=6")


def test_an_arm_that_the_earlier_study_lacks_gets_as_many_points(earlier: Path, tmp_path: Path):
    both = ("arm_args={batchnorm: {norm: batch}}", "arms=[none,batchnorm]", "model.hidden=[8]")
    context = build_context(composed(*SMALL, f"output_dir={tmp_path}/x", f"study.warm_start={earlier}", *both))
    assert [len(points) for points in context.space.earlier.values()] == [2, 2]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("place", ["journal", "name", "sqlite"])
def test_the_earlier_study_is_found(earlier: Path, tmp_path: Path, place: str):
    out, journal = tmp_path / "x", earlier / "study.journal"
    given: dict[str, tuple[str, ...]] = {"journal": (f"study.warm_start={journal}",)}
    if place == "name":
        shutil.copy(journal, tmp_path / "shared.journal")
        given["name"] = (f"study.storage={tmp_path}/shared.journal", "study.warm_start=mlp-digits")
    if place == "sqlite":
        url = f"sqlite:///{tmp_path}/study.db"
        for arm in ("none", "dropout"):
            optuna.copy_study(
                from_study_name=f"mlp-digits/{arm}",
                from_storage=open_storage(None, journal),
                to_storage=open_storage(url, journal),
            )
        given["sqlite"] = (f"study.warm_start={url}",)
    context = build_context(composed(*SMALL, f"output_dir={out}", "study.name=new", *given[place]))
    best = best_first(earlier, "none")
    assert [point["lr"] for point in context.space.earlier["none"]] == [lr for lr, _, _ in best]


def test_what_does_not_fit_is_named_once(earlier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    narrow = ("space.lr.low=1e-5", "space.lr.high=1e-4", "model.input_dropout=false", "space.high=0.45")
    context = build_context(composed(*SMALL, f"output_dir={tmp_path}/x", f"study.warm_start={earlier}", *narrow))
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "study.warm_start" in line]
    assert "lr (" in line
    assert "is out of range)" in line
    assert "(not searched here)" in line
    assert all("lr" not in point for points in context.space.earlier.values() for point in points)


WRONG = [
    ("nowhere", "(no folder, file or study has this name)"),
    ("mlp-digits", "(that is the study of this search)"),
    ("sqlite:///nowhere.db", "(sqlite:///nowhere.db does not exist)"),
    ("empty", "(empty/study.journal does not exist)"),
    ("file", "is not a journal entry"),
    ("begun", "(study a has no completed trial)"),
    ("unused", "(no study of dropsearch in it)"),
    ("foreign", "(study a is of module other.Net, and this search of dropsearch.models"),
    ("several", "(it has the studies a, b: set study.storage to it and study.warm_start to one of these names)"),
    ("x" * 300, "(no folder, file or study has this name)"),
    ("sqlite:///" + "x" * 300, "File name too long"),
    ("other", "(study a is not one of dropsearch)"),
    ("'a\nb'", "study.warm_start must be a name on one line"),
    ("''", "study.warm_start must be a name on one line"),
]


@pytest.fixture
def places(tmp_path: Path) -> None:
    """Places of which none can be started from."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no journal\n")
    ours = "dropsearch.models.mlp_classifier"
    for place, studies in {
        "begun": {"a/none": ours},
        "unused": {"a": ours},
        "other": {"a/none": ""},
        "foreign": {"a/none": "other.Net"},
        "several": {"a/none": ours, "b/none": ours},
    }.items():
        storage = open_storage(str(tmp_path / place / "study.journal"), tmp_path)
        for name, module in studies.items():
            study = optuna.create_study(storage=storage, study_name=name)
            if module:
                study.set_user_attr("fingerprint", {"model.class": module, "sites": ["net.input.dropout"]})


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_a_wrong_place_is_refused(cli: Cli, places: None, given: str, said: str):
    ended: Ended = cli(*LIGHT, "task=plan", f"study.warm_start={given}")
    assert ended.status == 2
    assert said in ended.err
    assert ended.err.count("study.warm_start must") == 1
    assert len(ended.err.strip().splitlines()) == 1
    assert not [path for path in ended.left if path.startswith("outputs")]


def test_a_study_is_not_its_own_start(earlier: Path):
    for given in ("mlp-digits", str(earlier)):
        with pytest.raises(InputError, match=r"study\.warm_start must be an earlier study"):
            build_context(composed(*SMALL, f"output_dir={earlier}", f"study.warm_start={given}"))
