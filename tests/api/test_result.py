"""The result of a search: studies, figures, the trained winner, and reading it back from its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
import torch
from matplotlib.figure import Figure
from optuna.pruners import NopPruner, ThresholdPruner
from optuna.samplers import GridSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage

import dropsearch
from dropsearch import SearchResult
from dropsearch.core.errors import InputError
from dropsearch.core.records.codec import encode
from tests.api.conftest import LIGHT
from tests.user_modules import data, nets

pytestmark = pytest.mark.slow

Call = Callable[..., SearchResult]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("scripted") / "out"
    options = {**LIGHT, "output_dir": folder, "params": {"width": [6, 12]}, "n_trials": 4}
    return dropsearch.search(lambda lr, width: nets.LitNet(width=width, lr=lr), data.Digits(), **options)


@pytest.fixture
def search(tmp_path: Path) -> Call:
    options = {**LIGHT, "arms": ["dropout"], "confirm_seeds": 1, "output_dir": tmp_path / "out"}
    return lambda **more: dropsearch.search(nets.LitNet, data.Digits(), **{**options, **more})


@pytest.fixture(scope="module")
def batch() -> Any:
    source = data.Digits()
    source.setup("fit")
    return next(iter(source.val_dataloader()))


def test_each_arm_has_its_optuna_study(result: SearchResult):
    assert list(result.studies) == ["none", "dropout"]
    for arm, study in result.studies.items():
        assert isinstance(study, optuna.Study)
        frame = result.trials_dataframe()
        complete = frame[(frame["arm"] == arm) & (frame["state"] == "COMPLETE")]
        assert study.best_value == complete["val_loss"].min()


def test_the_figures_are_matplotlibs(result: SearchResult, tmp_path: Path):
    for name in ("rates", "curves", "best_so_far", "differences"):
        figure = getattr(result, f"plot_{name}")()
        assert isinstance(figure, Figure), name
        figure.savefig(tmp_path / f"{name}.png")
    rates = result.plot_rates()
    assert len(rates.axes) == 2, "a panel a site"
    assert rates._repr_png_().startswith(b"\x89PNG"), "a notebook shows it"


def test_a_figure_without_data_is_refused(result: SearchResult):
    with pytest.raises(InputError, match="the figure responses needs data"):
        result.plot_responses()


def test_the_winner_is_loaded_with_its_rates(result: SearchResult, batch: Any):
    module = result.load_best(arm="dropout")
    assert not module.training
    assert module.drop.p == result.rates("dropout")["drop"]
    saved = torch.load(result.output_dir / "best" / "dropout.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(saved[name], value) for name, value in module.state_dict().items())
    sites = dropsearch.dropout_sites(module, batch)
    assert {site.name: site.rate for site in sites} == pytest.approx(dict(result.rates("dropout")))


def test_a_result_is_read_back_from_a_folder_that_was_moved(result: SearchResult, tmp_path: Path, batch: Any):
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in result.output_dir.iterdir():
        (moved / path.name).symlink_to(path)
    loaded = SearchResult.load(moved, lambda lr, width: nets.LitNet(width=width, lr=lr))
    assert loaded.output_dir == moved
    assert repr(loaded) == repr(result)
    assert encode(loaded.summary.arms) == encode(result.summary.arms)
    assert loaded.trials_dataframe().equals(result.trials_dataframe())
    assert [study.best_value for study in loaded.studies.values()] == [s.best_value for s in result.studies.values()]
    inputs, _ = batch
    with torch.no_grad():
        assert torch.equal(loaded.load_best()(inputs), result.load_best()(inputs))


def test_a_result_without_the_class_cannot_load_its_winner(result: SearchResult):
    with pytest.raises(InputError, match=r"pass make_module=\.\.\."):
        SearchResult.load(result.output_dir).load_best()


def test_an_arm_that_did_not_run_has_no_winner(result: SearchResult):
    with pytest.raises(InputError, match='got "both": this run has none, dropout'):
        result.load_best(arm="both")


def test_a_checkpoint_with_objects_is_refused(result: SearchResult, tmp_path: Path):
    (tmp_path / "best").mkdir()
    for path in result.output_dir.glob("*.json*"):
        (tmp_path / path.name).symlink_to(path)
    torch.save({"state_dict": {}, "made": Path("/")}, tmp_path / "best" / "dropout.ckpt")
    with pytest.raises(InputError, match="must contain weights that fit LitNet"):
        SearchResult.load(tmp_path, nets.LitNet).load_best(arm="dropout")


class Noted(RandomSampler):
    """Proposes one rate for every site, and counts what it proposed."""

    proposed: ClassVar[list[str]] = []

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        self.proposed.append(param_name)
        return super().sample_independent(study, trial, param_name, param_distribution)


def test_a_sampler_object_proposes(search: Call):
    Noted.proposed.clear()
    found = search(sampler=Noted(seed=1), n_trials=4)
    assert {"lr", "weight_decay"} < set(Noted.proposed)
    assert found.trials_dataframe()["lr"].nunique() == 3, "the first two trials have points of their own"
    assert found.summary.config["sampler"]["name"] == "Noted"


def test_tpe_searches_with_its_own_options(search: Call):
    assert len(search(sampler=TPESampler(n_startup_trials=1, seed=0), n_trials=4).trials_dataframe()) == 4


def test_a_pruner_object_prunes(search: Call):
    found = search(pruner=ThresholdPruner(upper=1e-9), n_trials=2)
    assert list(found.trials_dataframe()["state"]) == ["PRUNED", "PRUNED"]


def test_named_samplers_and_pruners_are_those_of_the_configuration(search: Call):
    config = search(sampler="random", pruner="none", n_trials=1).summary.config
    assert (config["sampler"]["name"], config["pruner"]["name"]) == ("random", "none")


def test_a_storage_object_keeps_the_studies(search: Call):
    storage = InMemoryStorage()
    found = search(storage=storage, n_trials=2)
    assert optuna.get_all_study_names(storage) == [
        f"{found.summary.study}/dropout",
        f"{found.summary.study}/dropout/confirm",
    ]
    assert len(found.studies["dropout"].trials) == 2
    assert not (found.output_dir / "study.journal").exists()


def test_a_path_is_a_journal_file(search: Call, tmp_path: Path):
    found = search(storage=tmp_path / "mine.journal", n_trials=1)
    assert (tmp_path / "mine.journal").exists()
    assert len(found.studies["dropout"].trials) == 1


def test_no_trial_begins_after_the_timeout(search: Call):
    assert len(search(timeout=1e-6, n_trials=30, engine="sequential").trials_dataframe()) == 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sampler": "tpee"}, "sampler"),
    ({"sampler": NopPruner()}, "sampler must be a name or an object of optuna.samplers"),
    ({"pruner": 5}, "pruner must be a name or an object of optuna.pruners, got 5"),
    ({"sampler": GridSampler({"lr": [0.1]})}, "must not keep its progress in the storage"),
    ({"storage": 5}, "storage must be an Optuna URL, a path or an object of optuna.storages, got 5"),
    ({"timeout": 0}, "study.timeout must be above 0, got 0"),
    ({"timeout": "soon"}, "timeout must be a number of seconds, got 'soon'"),
    ({"sampler": "random", "overrides": ["sampler=gp"]}, "sampler=gp (use sampler=...)"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=[row[1][:30] for row in REFUSED])
def test_what_cannot_be_used_is_one_line(search: Call, tmp_path: Path, given: dict[str, Any], message: str):
    with pytest.raises(InputError) as caught:
        search(**given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
