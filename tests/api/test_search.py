"""The search as a call: what a script or a notebook gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import nn

import dropsearch
from dropsearch.api.result import SearchResult
from dropsearch.api.search import _config
from dropsearch.core.errors import InputError
from dropsearch.dropout.tools.inventory import dropout_sites
from dropsearch.experiment.context import build_context
from dropsearch.training.adapters.layers import batchnorms
from tests.api.conftest import LIGHT
from tests.user_modules import data, nets

Call = Callable[..., SearchResult]


@pytest.fixture
def search(tmp_path: Path) -> Call:
    return lambda *given, **more: dropsearch.search(*given, **{**LIGHT, "output_dir": tmp_path / "out", **more})


class Layered(nets.LitNet):
    """With layers alone as sites, one of them an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x.flatten(1))).unflatten(1, (3, 4))
        hidden = hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0]
        return self.last(self.drop(hidden.flatten(1)))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("scripted") / "out"
    return dropsearch.search(Layered, data.Digits(), **{**LIGHT, "output_dir": folder, "arms": ["dropout"]})


def test_the_answer_reads_as_the_table(result: SearchResult):
    assert "Arms: less val_loss is better" in repr(result)
    assert "attention" in repr(result)
    for shown in (repr(result), result._repr_markdown_()):
        assert "With 2 trials an arm only the typical rates and no dropout were tried." in " ".join(shown.split())
    assert "| dropout |" in result._repr_markdown_()
    assert "![rates](data:image/png;base64,iVBOR" in result._repr_markdown_()


def test_the_answer_has_the_rates_the_trials_and_the_model(result: SearchResult):
    assert result.best_arm == "dropout"
    assert set(result.best_rates) == {"attention", "drop"}
    assert result.best_checkpoint is not None
    Layered.load_from_checkpoint(result.best_checkpoint)
    frame = result.trials_dataframe()
    assert len(frame) == 2
    assert {
        "arm",
        "number",
        "state",
        "val_loss",
        "val_acc",
        "lr",
        "weight_decay",
        "rate.drop",
        "rate.attention",
    } <= set(frame.columns)


def test_what_is_kept_of_the_best_names_no_command_that_fails(result: SearchResult):
    first, *_ = (result.output_dir / "best" / "dropout.yaml").read_text().splitlines()
    assert "dropsearch.set_rates" in first
    assert "python -m" not in first


def test_the_rates_are_set_on_the_layers_of_a_module(result: SearchResult):
    module = result.apply(Layered(), "dropout")
    rates = result.rates("dropout")
    assert (module.drop.p, module.attention.dropout) == (rates["drop"], rates["attention"])


def test_the_rate_of_a_bare_call_is_set_too(search: Call):
    found = search(lambda lr: nets.LitNet(lr=lr), data.Digits(), arms=["dropout"])
    module, source = found.apply(nets.LitNet()), data.Digits()
    source.setup("fit")
    sites = dropout_sites(module, next(iter(source.train_dataloader())))
    assert {site.name: site.rate for site in sites} == pytest.approx(dict(found.best_rates))
    assert "model" in found.best_rates


def test_what_was_searched_without_batchnorm_is_applied_without_it(search: Call):
    found = search(nets.Normed, data.Digits(), arms=["none", "batchnorm"], batchnorm="identity", n_trials=1)
    without, with_it = found.apply(nets.Normed(), "none"), found.apply(nets.Normed(), "batchnorm")
    assert (batchnorms(without), batchnorms(with_it)) == ([], ["norm"])


def test_the_settings_of_the_best_arm_are_given(result: SearchResult):
    frame, winner = result.trials_dataframe(), result.summary.arms["dropout"].winner
    assert winner is not None
    row = frame[frame["number"] == winner.number].iloc[0]
    assert (result.best_lr, result.best_weight_decay) == (row["lr"], row["weight_decay"])


def test_a_module_without_the_sites_is_refused(result: SearchResult):
    with pytest.raises(InputError, match="attention"):
        result.apply(nets.LitNet(), "dropout")


def test_called_again_the_study_continues(search: Call, capsys: pytest.CaptureFixture[str]):
    first = search(nets.LitNet, data.Digits(), arms=["none"])
    again = search(nets.LitNet, data.Digits(), arms=["none"], n_trials=3)
    losses = [list(found.trials_dataframe()["val_loss"]) for found in (first, again)]
    assert losses[1][:2] == losses[0]
    assert len(losses[1]) == 3
    said = "2 trials and 2 retrainings of study LitNet-Digits done; it continues"
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_single_callback_is_one(search: Call, tmp_path: Path):
    search(nets.LitNet, data.Digits(), arms=["none"], n_trials=1, confirm_seeds=1, callbacks=Writing(tmp_path / "seen"))
    assert (tmp_path / "seen").exists()


def test_a_study_is_known_by_the_name_of_a_function_not_by_where_its_file_lies():
    config = _config(wide, data.Digits(), None, ())
    config.trainer.accelerator = "cpu"
    config.space.params = {"model.width": [8, 12]}
    assert build_context(config).modules.class_name == f"{__name__}.wide"


def test_the_learning_rate_of_a_factory_without_arguments_is_set_on_its_optimiser(search: Call):
    found = search(lambda: nets.Scored(), data.Digits(), monitor="valid/loss", arms=["none"])
    assert "the learning rate is set in the optimizer's parameter groups" in found.summary.notes
    assert found.trials_dataframe()["lr"].nunique() == 2


def wide(lr: float, width: int, slope: float = 0.0) -> nets.LitNet:
    """With an argument that has no default, and one that makes another program of each value."""
    module = nets.LitNet(width=width, lr=lr)
    module.drop = nn.Dropout(0.5) if slope < 0.5 else nn.Sequential(nn.LeakyReLU(slope), nn.Dropout(0.5))[1]  # type: ignore[assignment]
    return module


def test_any_argument_of_the_function_is_searched_beside_the_rates(search: Call):
    params = {"width": [6, 12], "slope": (0.1, 0.3)}
    found = search(wide, data.Digits(), params=params, engine="vectorized", n_trials=4, arms=["dropout"])
    frame = found.trials_dataframe()
    assert set(frame["model.width"]) == {6, 12}
    assert frame["model.slope"].between(0.1, 0.3).all()
    assert "vectorized" in found.summary.engine
    assert set(found.best_params) == {"model.width", "model.slope"}
    assert found.best_checkpoint is not None
    weights = torch.load(found.best_checkpoint, weights_only=True)["state_dict"]
    assert len(weights["first.bias"]) == found.best_params["model.width"]
    assert "What else was searched, as found" in repr(found)


def test_a_search_begins_with_the_default_of_an_argument(search: Call):
    found = search(nets.LitNet, data.Digits(), params={"width": [6, 12, 9]}, arms=["none"])
    assert found.trials_dataframe()["model.width"][0] == 12


class Writing(Callback):
    """Writes a line for each trial that it saw."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        with self.path.open("a") as stream:
            stream.write(f"{trainer.accumulate_grad_batches}\n")


def test_callbacks_and_arguments_of_the_trainer_are_used(search: Call, tmp_path: Path):
    callbacks = [Writing(tmp_path / "seen")]
    trainer = {"accumulate_grad_batches": 2}
    found = search(nets.LitNet, data.Digits(), arms=["none"], engine="auto", callbacks=callbacks, trainer=trainer)
    assert (tmp_path / "seen").read_text() == "2\n" * 4, "two trials, two retrainings"
    assert found.summary.engine.startswith("sequential on cpu: the callback Writing works with")


def test_an_object_may_be_an_argument_of_the_trainer_and_the_study_continues(search: Call, tmp_path: Path):
    for n_trials in (1, 2):
        trainer = {"logger": CSVLogger(tmp_path / "logs")}
        found = search(nets.LitNet, data.Digits(), arms=["none"], trainer=trainer, n_trials=n_trials)
    assert len(found.trials_dataframe()) == 2
    assert found.summary.config["trainer"]["logger"] == "lightning.pytorch.loggers.csv_logs.CSVLogger"
    assert list((tmp_path / "logs").rglob("metrics.csv"))


ONE = nets.LitNet()
REFUSED: list[tuple[Any, Any, dict[str, Any], str]] = [
    (ONE, data.Digits(), {}, "make_module must be a function that builds a new LightningModule, got a LitNet"),
    (lambda: ONE, data.Digits(), {}, "must build a new module for each trial, got the same object twice"),
    (lambda: nn.Linear(2, 2), data.Digits(), {}, "model must be a LightningModule of lightning or pytorch_lightning"),
    (nets.Broken, data.Digits(), {}, "model=Broken cannot be built: ValueError: no such table"),
    (nets.LitNet, data.Digits, {}, "datamodule must be a LightningDataModule, got the class Digits"),
    (nets.LitNet, None, {}, "datamodule must be a LightningDataModule, got a NoneType"),
    (nets.LitNet, data.WithoutTraining(), {}, "must return batches from train_dataloader, got none"),
    (nets.LitNet, data.Digits(), {"monitor": "f1"}, 'got "f1": it logs val_acc, val_loss'),
    (
        nets.LitNet,
        data.Digits(),
        {"insert": 5},
        'insert must be "after_activation", a name, pattern or type of submodules, or a list',
    ),
    (nets.LitNet, data.Digits(), {"callbacks": [5]}, "callbacks must be a list of Lightning callbacks or a function"),
    (nets.Wanting, data.Digits(), {}, "argument: 'backbone': pass a function that builds it, lambda: Wanting(...)"),
    (nets.LitNet, data.Digits(), {"n_trials": 0}, "study.n_trials must be at least 1, got 0"),
    (nets.LitNet, data.Digits(), {"params": {"widht": [1, 2]}}, 'got "widht" (did you mean "width"?): it takes'),
    (
        lambda: nets.LitNet(),
        data.Digits(),
        {"params": {"width": [1, 2]}},
        'space.params.model must name arguments of module, got "width": it takes none',
    ),
    (
        lambda lr: nets.LitNet(lr=lr),
        data.Digits(),
        {"arm_args": {"batchnorm": {"norm": "batch"}}},
        'arm_args must be of arms that run (none, dropout), got "batchnorm": add it to arms',
    ),
    (
        lambda lr: nets.LitNet(lr=lr),
        data.Digits(),
        {"arms": ["none", "batchnorm"], "arm_args": {"batchnorm": {"norm": "batch"}}},
        'arm_args.batchnorm must name arguments of module, got "norm": it takes lr',
    ),
    (nets.LitNet, data.Digits(), {"params": {"width": 5}}, "space.params.model.width must be choice(A,B)"),
    (nets.LitNet, data.Digits(), {"params": {"width": (5, 5)}}, "low must be below high"),
    (
        nets.LitNet,
        data.Digits(),
        {"params": {"lr": (0.1, 1.0)}},
        "space.params must leave out model.lr, which is searched",
    ),
    (nets.LitNet, data.Digits(), {"params": {"width": [8, -1]}}, "got model.width=-1: model=LitNet cannot be built"),
    (nets.LitNet, data.Digits(), {"lr": 1e-3}, "lr must be a range (low, high), got 0.001: for example lr="),
    (nets.LitNet, data.Digits(), {"rates": (0, "a")}, "rates must be a range (low, high), got (0, 'a')"),
    (nets.LitNet, data.Digits(), {"n_trials": None}, "n_trials must be an integer, got None"),
    (nets.LitNet, data.Digits(), {"arms": "none"}, "arms must be a list of strings, got 'none'"),
    (nets.LitNet, data.Digits(), {"params": ["width"]}, "params must be a mapping, got ['width']"),
    (nets.LitNet, data.Digits(), {"trainer": {"max_epochs": "x"}}, "trainer['max_epochs'] must have the type of"),
    (nets.LitNet, data.Digits(), {"overrides": "sampler=random"}, "overrides must be a list of KEY=VALUE"),
    (nets.LitNet, data.Digits(), {"overrides": ["seed=1", 3]}, "overrides must be a list of KEY=VALUE"),
    (nets.LitNet, data.Digits(), {"output_dir": "a\0b"}, "output_dir must be a name on one line"),
    (nets.LitNet, data.Digits(), {"storage": "a\0b"}, "study.storage must be a name on one line"),
    (nets.LitNet, data.Digits(), {"warm_start": 3}, "warm_start must be a string, got 3"),
    (nets.LitNet, data.Digits(), {"warm_start": Path("nowhere")}, 'got "nowhere" (no folder, file or study has this'),
    (nets.LitNet, data.Digits(), {"lr": (0.1, 0.01)}, "space.lr.low must be at most space.lr.high"),
]


WITHOUT_EFFECT: list[tuple[dict[str, Any], list[str], str]] = [
    ({}, ["study.n_trials=1"], "study.n_trials=1 (use n_trials=...)"),
    ({}, ["++study={name: a, n_trials: 1}"], "++study={name: a, n_trials: 1} (use n_trials=...)"),
    (
        {},
        ["engine=vectorized", "evidence=off", "confirm.seeds=3"],
        "engine=vectorized (use engine=...), confirm.seeds=3 (use confirm_seeds=...)",
    ),
    ({"warm_start": "out"}, ["study.warm_start=x"], "study.warm_start=x (use warm_start=...)"),
    ({"lr": (0.1, 1)}, ["space.lr.low=0.2"], "space.lr.low=0.2 (use lr=...)"),
    ({"lr": (0.1, 1)}, ["space={lr: {low: 0.2}}"], "space={lr: {low: 0.2}} (use lr=...)"),
    ({"trainer": {"accumulate_grad_batches": 2}}, ["+trainer.accumulate_grad_batches=3"], "=3 (use trainer=...)"),
    ({"params": {"width": [4, 8]}}, ["space.params={model.width: choice(1,2)}"], "(use params=...)"),
    ({"kinds": {"drop": "hidden"}}, ["sites.kinds={drop: input}"], "(use kinds=...)"),
    ({"insert": "first"}, ["sites.insert=first"], "sites.insert=first (use insert=...)"),
    ({}, ["model=cnn", "model.width=3", "data.batch_size=3"], "model=cnn (use make_module=...), model.width=3 (use"),
    (
        {},
        ["task=plan", "experiment=fashion_cnn", "hydra.run.dir=x"],
        "task=plan (a call searches; the command line has",
    ),
]


@pytest.mark.parametrize(("more", "overrides", "message"), WITHOUT_EFFECT, ids=[row[2][:40] for row in WITHOUT_EFFECT])
def test_overrides_without_effect_are_refused_all_at_once(
    search: Call, tmp_path: Path, more: dict[str, Any], overrides: list[str], message: str
):
    with pytest.raises(InputError, match=r"^overrides must not contain keys that arguments set") as caught:
        search(nets.LitNet, data.Digits(), overrides=overrides, **more)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("make", "module", "more", "message"), REFUSED, ids=[row[3][:40] for row in REFUSED])
def test_what_cannot_be_used_is_one_line(
    search: Call, tmp_path: Path, make: Any, module: Any, more: dict[str, Any], message: str
):
    with pytest.raises(InputError) as caught:
        search(make, module, **more)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
