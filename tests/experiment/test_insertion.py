"""A module without dropout is searched where the user says that some is to be put."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dropsearch
from dropsearch.api.result import SearchResult
from dropsearch.core.errors import InputError
from dropsearch.experiment.module_builder import apply, inserted_names
from tests.experiment.conftest import Cli, shell_lines
from tests.experiment.tasks.test_sites import own, table
from tests.user_modules import data
from tests.user_modules.inactive import Plain

LIGHT: dict[str, Any] = {
    "n_trials": 2,
    "max_epochs": 1,
    "confirm_top_k": 1,
    "confirm_seeds": 1,
    "accelerator": "cpu",
    "engine": "sequential",
    "arms": ["dropout"],
    "overrides": ["evidence=off"],
}
DOUBLE = "trainer.precision=64-true"


def test_inserted_sites_train_the_same_vectorized_and_sequentially(tmp_path: Path):
    engines = {"sequential": [DOUBLE], "vectorized": ["engine.processes=1", "engine.width=2", DOUBLE]}
    found = []
    for engine, words in engines.items():
        given = {**LIGHT, "insert": "after_activation", "engine": engine, "output_dir": tmp_path / engine}
        given["overrides"] = [*LIGHT["overrides"], *words]
        result = dropsearch.search(Plain, data.Digits(), **given)
        assert result.summary.engine.startswith(engine)
        found.append(result.trials_dataframe())
    assert {"rate.relu", "rate.tanh"} <= set(found[0].columns)
    losses = [list(frame["val_loss"]) for frame in found]
    assert losses[0] == pytest.approx(losses[1], abs=1e-8)
    assert list(found[0]["rate.relu"]) == [0.4, 0.0], "the typical point, then no dropout"


@pytest.mark.parametrize(
    ("net", "insert", "sites"),
    [
        ("inactive.Plain", "after_activation", ["relu", "tanh"]),
        ("inactive.Plain", "[after_activation]", ["relu", "tanh"]),
        ("inactive.Plain", "[t*,torch.nn.ReLU]", ["relu", "tanh"]),
        ("inactive.Plain", "torch.nn.Tanh", ["tanh"]),
        ("nets.Deeper", "after_activation", ["drop", "between.2"]),
        ("nets.Deeper", "between.0", ["drop", "between.0", "between.2"]),
    ],
)
def test_names_patterns_and_types_say_where(cli: Cli, net: str, insert: str, sites: list[str]):
    found = table(cli(*own(net, f"sites.insert={insert}", "task=sites")))
    assert [name for name, row in found.items() if row[4] == "1"] == sites


class Local(nn.Module):
    """A part that is nobody's activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Gated(Plain):
    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.tanh = Local()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("inserted") / "out"
    given = {**LIGHT, "n_trials": 1, "arms": ["typical"], "insert": [Local, "re*"], "output_dir": folder}
    return dropsearch.search(Gated, data.Digits(), **given)


def test_in_python_types_may_be_given_themselves_and_are_kept_by_name(result: SearchResult):
    assert dict(result.best_rates) == {"relu": 0.4, "tanh": 0.4}
    assert result.summary.config["sites"]["insert"] == [f"{Local.__module__}.Local", "re*"]


def test_what_was_found_is_inserted_and_set_on_a_module(result: SearchResult):
    module = result.apply(Gated())
    source = data.Digits()
    source.setup()
    sites = dropsearch.dropout_sites(module, next(iter(source.train_dataloader())))
    assert {site.name: site.rate for site in sites} == {"relu": 0.4, "tanh": 0.4}
    result.apply(module)  # a second time finds the dropout there
    assert inserted_names(module) == ["relu", "tanh"]


def test_a_module_that_has_not_all_the_sites_is_left_as_it_is(result: SearchResult):
    class Shorter(Gated):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.rest = nn.Identity(), Local()
            del self.tanh

    module = Shorter()
    with pytest.raises(InputError, match="tanh"):
        result.apply(module)
    assert inserted_names(module) == []


def test_a_module_that_is_refused_keeps_its_batchnorm():
    module = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU())
    norm = module[0]
    with pytest.raises(InputError, match="absent"):
        apply(module, "1", {"absent": 0.1}, batchnorm=False)
    assert (module[0], inserted_names(module)) == (norm, [])


def test_a_study_is_not_continued_with_dropout_elsewhere(result: SearchResult):
    given = {**LIGHT, "n_trials": 1, "arms": ["typical"], "output_dir": result.output_dir}
    with pytest.raises(InputError, match=r"sites\.insert"):
        dropsearch.search(Gated, data.Digits(), insert=["tanh", "relu"], **given)


def test_the_winner_reloads_into_the_user_s_class_and_is_retrained_with_its_sites(cli: Cli, tmp_path: Path):
    ended = cli(*own("inactive.Plain", "arms=[dropout]", "sites.insert=[torch.nn.ReLU]", "study.n_trials=1"))
    assert ended.status == 0, ended.err
    loaded = Plain.load_from_checkpoint(tmp_path / "out" / "best" / "dropout.ckpt")
    assert list(loaded.state_dict()) == list(Plain().state_dict())
    (command,) = [line for line in shell_lines(ended.out) if "load_best" in line]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(shlex.split(command)[2], scope := {})
    assert printed.getvalue().startswith("Plain(")
    winner = json.loads((tmp_path / "out" / "results.json").read_text())["arms"]["dropout"]["winner"]
    batch = torch.zeros(2, 64), torch.zeros(2, dtype=torch.int64)
    found = {site.name: site.rate for site in dropsearch.dropout_sites(scope["net"], batch)}
    assert found == pytest.approx(winner["rates"], abs=1e-5)
    retrained = cli("--config-dir", "out/best", "--config-name", "dropout")
    assert retrained.status == 0, retrained.err
    first, again = (
        torch.load(tmp_path / path, weights_only=False)["state_dict"]
        for path in ("out/best/dropout.ckpt", next(name for name in retrained.left if name.endswith(".ckpt")))
    )
    assert all(torch.equal(first[name], again[name]) for name in first), "the retraining dropped at the same rates"


REFUSED = [
    (own("inactive.Plain", "sites.insert=after_activaton"), '(did you mean "after_activation"?)'),
    (
        own("inactive.Plain", "sites.insert=[rleu]"),
        'sites.insert must name submodules of Plain or types of called submodules, got "',
    ),
    (
        own("inactive.Plain", "sites.insert=[torch.nn.Relu]"),
        'got "torch.nn.Relu" (did you mean "torch.nn.ReLU"?): its submodules are',
    ),
    (own("inactive.Plain", "sites.insert=[torch.nn.Conv2d]"), "got Conv2d: its submodules are first"),
    (
        own("inactive.Dead", "sites.insert=after_activation"),
        "sites.insert=after_activation needs activation modules",
    ),
    (
        own("inactive.Plain", "sites.insert=[]"),
        "sites.insert must be after_activation, or a name, pattern or type of submodules",
    ),
    (own("inactive.Plain", "sites.insert=3"), "or a list of these, got 3"),
    (own("inactive.Plain", "sites.inset=relu"), '(did you mean "sites.insert"?)'),
    (own("inactive.Plain"), "or add dropout to the model, for example by sites.insert"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[message[:50] for _, message in REFUSED])
def test_an_impossible_insertion_is_one_line_and_leaves_nothing(cli: Cli, words: tuple[str, ...], message: str):
    ended = cli(*words)
    assert ended.status == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert ended.left == []
