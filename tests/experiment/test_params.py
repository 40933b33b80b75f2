"""What else is searched: the same numbers whatever trains them, and the values found in all that a run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dropsearch import SearchResult
from dropsearch.config.compose import compose_overrides
from dropsearch.core.errors import InputError
from dropsearch.experiment.tasks import run
from dropsearch.experiment.tasks.plan import show_plan
from dropsearch.experiment.tasks.retrain import retrain
from dropsearch.report.terminal import closing
from tests.experiment.conftest import LIGHT, composed

ARMS = ("none", "dropout", "both")
SEARCHED = "space.params={model.hidden: choice([16,12],[9,7]), optimizer.momentum: interval(0.2,0.95)}"
SMALL = (
    f"arms=[{','.join(ARMS)}]", "data.train_size=128", "model.hidden=[16,12]", "sampler=random", "pruner=none",
    "study.n_trials=4", "trainer.max_epochs=1", "confirm.top_k=1", "confirm.seeds=2", "tracking=none",
    "trainer.precision=64-true", "trainer.accelerator=cpu", "optimizer=sgd", "evidence=off", SEARCHED,
)  # fmt: skip
PLANNED = (*LIGHT, "arms=[dropout]", "study.n_trials=2", "engine=vectorized", "engine.width=2")
TOGETHER = ("engine=vectorized", "engine.width=3", "engine.processes=1")


def study(folder: Path, *more: str) -> dict[str, Any]:
    assert run(compose_overrides([*SMALL, *more, f"output_dir={folder}"])) == 0
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("array") / "out"
    return folder, study(folder, *TOGETHER)


@pytest.mark.parametrize("engine", [("engine=sequential",), (*TOGETHER[:2], "engine.processes=2")])
def test_every_engine_gives_the_same_table_trial_by_trial(
    array: tuple[Path, dict[str, Any]], tmp_path: Path, engine: tuple[str, ...]
):
    other = study(tmp_path, *engine)
    for arm in ARMS:
        expected = {trial["seed"]: trial for trial in other["arms"][arm]["trials"]}
        got = {trial["seed"]: trial for trial in array[1]["arms"][arm]["trials"]}
        assert got.keys() == expected.keys()
        assert {str(trial["hyperparameters"]["model.hidden"]) for trial in got.values()} == {"[16, 12]", "[9, 7]"}
        for seed, trial in expected.items():
            assert got[seed]["hyperparameters"] == trial["hyperparameters"]
            assert got[seed]["val_loss"] == pytest.approx(trial["val_loss"], abs=1e-8)
        ours, theirs = array[1]["arms"][arm]["winner"], other["arms"][arm]["winner"]
        assert ours["hyperparameters"] == theirs["hyperparameters"]
        assert ours["test_loss"] == pytest.approx(theirs["test_loss"], abs=1e-6)


def test_the_first_trials_have_the_configured_values_and_every_arm_searches_the_same(
    array: tuple[Path, dict[str, Any]],
):
    trials = [array[1]["arms"][arm]["trials"] for arm in ARMS]
    by_seed = [{t["seed"]: t["hyperparameters"] for t in sorted(arm, key=lambda t: t["seed"])} for arm in trials]
    configured = {"model.hidden": [16, 12], "optimizer.momentum": 0.9}
    assert [trials[i][0]["hyperparameters"] for i in range(3)] == [configured] * 3
    assert by_seed[1] == by_seed[2]
    assert sum(by_seed[0][seed] == by_seed[1][seed] for seed in by_seed[0]) == 3, "all but where rates are all zero"


def test_what_was_found_is_kept_retrained_and_loaded(array: tuple[Path, dict[str, Any]], tmp_path: Path):
    folder, results = array
    for arm in ARMS:
        winner = results["arms"][arm]["winner"]
        module = SearchResult.load(folder).load_best(arm=arm)
        assert list(module.net.hidden1.linear.weight.shape) == [winner["hyperparameters"]["model.hidden"][0], 64]  # type: ignore[union-attr]
        assert module.hparams["momentum"] == winner["hyperparameters"]["optimizer.momentum"]
    config = _again(folder, "both", tmp_path)
    assert (config.model.hidden, config.optimizer.momentum, config.space.params) == (
        *results["arms"]["both"]["winner"]["hyperparameters"].values(),
        {},
    )
    assert retrain(config) == 0
    (found,) = tmp_path.glob("*/best/both.ckpt")
    kept, again = (torch.load(path, weights_only=True)["state_dict"] for path in (folder / "best" / "both.ckpt", found))
    for name, value in kept.items():
        assert torch.allclose(again[name].double(), value.double(), rtol=0, atol=1e-7), name  # kept in float32


def _again(folder: Path, arm: str, output: Path) -> Any:
    from hydra import compose, initialize_config_dir

    from dropsearch.config.compose import register_schemas, typed

    register_schemas()
    with initialize_config_dir(str(folder / "best"), version_base="1.3"):
        return typed(compose(arm, [f"output_dir={output}"]))


def test_the_table_names_what_was_found(array: tuple[Path, dict[str, Any]]):
    page = (array[0] / "report.md").read_text()
    assert "**What else was searched, as found**" in page
    assert "| optimizer.momentum |" in page


def test_another_range_under_the_same_name_is_refused(array: tuple[Path, dict[str, Any]]):
    wider = SEARCHED.replace("0.95", "0.99")
    with pytest.raises(InputError, match=r"space\.params must be the same as when study mlp-digits/none began"):
        run(compose_overrides([*SMALL, wider, *TOGETHER, f"output_dir={array[0]}"]))
    without = [word for word in SMALL if word != SEARCHED]
    with pytest.raises(InputError, match=r"space\.params must be the same as"):
        run(compose_overrides([*without, *TOGETHER, f"output_dir={array[0]}"]))


def test_the_plan_says_what_else_is_searched_and_is_made_for_the_largest_model(capsys: pytest.CaptureFixture[str]):
    larger = "space.params={model.hidden: choice([8],[64],[32])}"
    assert show_plan(composed(*PLANNED, "model.hidden=[16]", *_quoted(larger))) == 0
    printed = capsys.readouterr().out
    assert "also        in every arm: model.hidden ([8], [64] or [32])" in printed
    assert f"memory      {64 * 64 + 64 + 64 * 10 + 10:,} parameters a trial" in printed


def test_the_plan_is_sequential_where_each_trial_is_its_own_program(capsys: pytest.CaptureFixture[str]):
    apart, alike = "trainer.gradient_clip_val: interval(0.5,2.0)", "optimizer.betas: choice([0.9,0.99],[0.8,0.99])"
    light = (*PLANNED, "engine.processes=1", "model.hidden=[16]")
    assert show_plan(composed(*light, *_quoted(f"space.params={{{alike},{apart}}}"))) == 0
    printed = " ".join(capsys.readouterr().out.split())  # folded at 80 columns
    assert "values of trainer.gradient_clip_val cannot share stacked tensors" in printed
    assert show_plan(composed(*light, *_quoted(f"space.params={{{alike}}}"))) == 0
    assert "one row" not in capsys.readouterr().out


def _quoted(word: str) -> list[str]:
    from dropsearch.config.params import with_params

    return with_params([word])


CHANGED = [
    (
        "space.params={model.hidden: choice([8],[8,8])}",
        "got model.hidden=[8,8], with which there is net.hidden2.dropout",
    ),
    ("space.params={model.input_dropout: choice(true,false)}", "with which there is no net.input.dropout"),
    ("model=transformer space.params={model.layers:interval(1,3)}", "got model.layers=1, with which there is no net"),
]


@pytest.mark.parametrize(("line", "message"), CHANGED)
def test_values_that_change_the_sites_are_refused(line: str, message: str, tmp_path: Path):
    words = [line] if line.startswith("space") else line.split()
    small = () if "transformer" in line else ("model.hidden=[8]",)
    with pytest.raises(InputError) as caught:
        run(compose_overrides([*small, *words, "tracking=none", f"output_dir={tmp_path / 'out'}"]))
    assert str(caught.value).startswith("space.params must not change the model's sites")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_built_with_a_value_is_refused(tmp_path: Path):
    words = ["model=mlp", "model.hidden=[8]", "space.params={model.hidden: choice([8],[99999999999999])}"]
    with pytest.raises(
        InputError, match=r"space\.params must contain legal values only: model\.hidden\[0\] must be at most 16384"
    ):
        run(compose_overrides([*words, "tracking=none", f"output_dir={tmp_path / 'out'}"]))


def test_what_is_printed_first_and_last_names_what_else_is_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from dropsearch.experiment.tasks.search import searched

    words = (*LIGHT, "arms=[dropout]", "study.n_trials=2", "model.hidden=[16]", "seed=3")
    summary = searched(composed(*words, *_quoted("space.params={model.hidden: [[16],[8]]}"), f"output_dir={tmp_path}"))
    opening = capsys.readouterr().out
    assert "in every arm: model.hidden ([16] or [8])" in " ".join(opening.split())
    assert "What else was searched, as found" in closing(summary)
