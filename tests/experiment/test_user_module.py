"""A module and data that somebody else wrote, searched from the command line without a change to them."""

from __future__ import annotations

import io
import json
import shlex
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.conftest import Cli
from tests.experiment.forked_runs import RunForker
from tests.experiment.one_figure import ONE_FIGURE

ROOT = Path(__file__).parents[2]
NETS, DATA = "tests.user_modules.nets", "tests.user_modules.data"
TINY = (
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "study.n_trials=2",
    "confirm.top_k=1",
    "confirm.seeds=2",
    "tracking=none",
    "evidence=off",
    "output_dir=out",
)


def own(net: str, data: str = "Digits", *more: str) -> tuple[str, ...]:
    return (f"model._target_={NETS}.{net}", f"data._target_={DATA}.{data}", *TINY, *more)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "results.json").read_text())


@pytest.fixture(scope="module")
def user_run(tmp_path_factory: pytest.TempPathFactory, run_forker: RunForker) -> tuple[Path, str]:
    """A run from the folder in which a user's package lies, with nothing else on the path."""
    folder = tmp_path_factory.mktemp("user_run")
    package = folder / "mypackage"
    package.mkdir()
    for name in ("nets", "data"):
        (package / f"{name}.py").write_text((ROOT / "tests" / "user_modules" / f"{name}.py").read_text())
    (package / "__init__.py").touch()
    tracked = [word for word in TINY if word != "tracking=none"]
    words = [
        "model._target_=mypackage.nets.LitNet",
        "+model.width=16",
        "data._target_=mypackage.data.WithTest",
        *tracked,
    ]
    ended = run_forker.python(folder, "-m", "dropsearch", *words, "tracking.log_model=false", setup=ONE_FIGURE)
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_a_package_in_the_working_folder_is_found_and_its_arguments_pass_through(user_run: tuple[Path, str]):
    found = results(user_run[0])
    assert (found["model"], found["data"]) == ("LitNet", "WithTest")
    assert found["config"]["model"] == {"_target_": "mypackage.nets.LitNet", "name": "LitNet", "width": 16}
    assert list(found["arms"]) == ["none", "typical", "dropout_shared", "dropout"]
    assert [site["name"] for site in found["sites"]] == ["model", "drop"]


def test_every_file_is_there_and_mlflow_has_the_trials(user_run: tuple[Path, str]):
    from mlflow import MlflowClient

    folder, _ = user_run
    names = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    assert {
        "results.json",
        "report.md",
        "study.journal",
        "best/dropout.yaml",
        "best/dropout.ckpt",
        "figures/curves.png",
    } <= names
    uri = f"sqlite:///{folder / 'out' / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("LitNet-WithTest")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {f"{arm}/{number}" for arm in results(folder)["arms"] for number in (0, 1)} <= set(runs)
    assert {"val_loss", "val_acc"} <= set(runs["dropout/0"].data.metrics)
    assert runs["LitNet-WithTest"].data.params["model._target_"] == "mypackage.nets.LitNet"


def test_the_printed_commands_reload_and_retrain_it(user_run: tuple[Path, str], run_forker: RunForker):
    folder, _ = user_run
    commands = results(folder)["commands"]
    *python, code = shlex.split(commands["reload"])
    batch = "(torch.zeros(2, 64), torch.zeros(2, dtype=torch.int64))"
    listed = f"from dropsearch import dropout_sites; import torch, json; sites = dropout_sites(net, {batch})"
    code = f"{code}; {listed}; print(json.dumps({{site.name: site.rate for site in sites}}))"
    retrained = run_forker.shell(folder, commands["retrain"])
    assert retrained.returncode == 0, retrained.stderr
    assert "kept in " in retrained.stdout
    loaded = run_forker.shell(folder, shlex.join([*python, code]))
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.startswith("LitNet(")
    found = results(folder)["arms"][results(folder)["recommended"]]["winner"]["rates"]
    assert json.loads(loaded.stdout.splitlines()[-1]) == pytest.approx(found, abs=1e-5)
    assert "out_features=16" in loaded.stdout


def test_the_checkpoint_is_an_ordinary_one_of_the_user_s_class(user_run: tuple[Path, str]):
    import torch

    folder, _ = user_run
    parts = torch.load(folder / "out" / "best" / "dropout.ckpt", weights_only=True)
    assert {"state_dict", "hyper_parameters", "pytorch-lightning_version"} <= set(parts)
    assert parts["hyper_parameters"]["width"] == 16


def test_arms_are_judged_by_what_is_monitored_on_the_test_set(user_run: tuple[Path, str]):
    folder, out = user_run
    found = results(folder)
    assert found["judge"]["metric"] == "test_loss"
    assert found["judge"]["higher_is_better"] is False
    winner = found["arms"]["dropout"]["winner"]
    assert winner["judged"] == winner["test_loss"]
    assert len(winner["test_loss"]) == 2
    assert "test loss" in out
    assert "then the test set, once" in " ".join(out.split())


def test_an_arm_without_dropout_switches_the_module_s_own_off(user_run: tuple[Path, str]):
    trial = results(user_run[0])["arms"]["none"]["trials"][0]
    assert trial["rates"] == {"model": 0.0, "drop": 0.0}


def test_vectorized_and_sequential_trials_are_equal(cli: Cli, tmp_path: Path):
    found = []
    for engine in ("sequential", "vectorized"):
        width = ("engine.width=2",) if engine == "vectorized" else ()
        given = (f"engine={engine}", "engine.processes=1", "arms=[none,dropout]", f"output_dir={engine}")
        ended = cli(*own("Deeper", "Digits", *given, *width))
        assert ended.status == 0, ended.err
        values = json.loads((tmp_path / engine / "results.json").read_text())
        assert values["engine"].startswith(engine)
        found.append([t["val_loss"] for arm in values["arms"].values() for t in arm["trials"]])
    assert found[0] == pytest.approx(found[1], abs=1e-5)


TWO_ROWS = ("engine=vectorized", "engine.processes=1", "engine.width=2")


def test_any_metric_can_be_monitored_and_the_more_may_be_the_better(cli: Cli, tmp_path: Path):
    ended = cli(*own("Scored", "Digits", "monitor=valid/f1", "mode=max", *TWO_ROWS, "arms=[none,dropout]"))
    assert ended.status == 0, ended.err
    found = results(tmp_path)
    for arm in found["arms"].values():
        trials = [trial["monitored"] for trial in arm["trials"]]
        assert all(0 <= value <= 1 for value in trials)
        assert arm["best"]["monitored"] == max(trials)
        assert arm["winner"]["mean_val_loss"] == pytest.approx(sum(arm["winner"]["judged"]) / 2)
        assert set(arm["trials"][0]["logged"]) == {"valid/f1", "valid/loss"}
    assert "more valid/f1 is better" in ended.out
    assert found["engine"].startswith("vectorized"), "each row has a metric object of its own"
    assert "there is no test set" in " ".join(ended.out.split())


def test_nested_targets_are_built(cli: Cli, tmp_path: Path):
    backbone = (
        "model.backbone._target_=torch.nn.Linear",
        "model.backbone.in_features=64",
        "model.backbone.out_features=12",
    )
    ended = cli(*own("Scored", "Digits", "monitor=valid/loss", "arms=[none]", "engine=sequential", *backbone))
    assert ended.status == 0, ended.err
    with redirect_stdout(io.StringIO()) as printed:
        exec(shlex.split(results(tmp_path)["commands"]["reload"])[2], {})
    assert "out_features=12" in printed.getvalue()


def test_a_catalogue_s_data_set_serves_a_module_of_one_s_own(cli: Cli, tmp_path: Path):
    words = [
        word for word in own("LitNet", "", "data=digits", "data.train_size=90", "arms=[none]") if "data._t" not in word
    ]
    ended = cli(*words, "engine=sequential")
    assert ended.status == 0, ended.err
    assert results(tmp_path)["data"] == "digits"


def test_the_momentum_of_its_optimizer_is_searched_vectorized_and_retrained(cli: Cli, tmp_path: Path):
    import torch

    searched = "space.params={model.width: choice(6,12), optimizer.momentum: interval(0.5,0.99)}"
    losses, momenta = [], []
    for engine in ("sequential", "vectorized"):
        more = (f"engine={engine}", "engine.processes=1", f"output_dir={engine}", "trainer.precision=64-true")
        width = ("engine.width=2",) if engine == "vectorized" else ()
        ended = cli(
            *own("Steep", "Digits", "arms=[dropout]", "study.n_trials=4", "sampler=random", *more, *width, searched)
        )
        assert ended.status == 0, ended.err
        trials = json.loads((tmp_path / engine / "results.json").read_text())["arms"]["dropout"]["trials"]
        trials.sort(key=lambda trial: trial["seed"])
        losses.append([trial["val_loss"] for trial in trials])
        momenta.append([trial["hyperparameters"]["optimizer.momentum"] for trial in trials])
    assert losses[0] == pytest.approx(losses[1], abs=1e-8)
    assert momenta[0] == momenta[1]
    assert len(set(momenta[0])) > 2
    retrained = cli("--config-dir", "sequential/best", "--config-name", "dropout")
    assert retrained.status == 0, retrained.err
    paths = ("sequential/best/dropout.ckpt", next(name for name in retrained.left if name.endswith(".ckpt")))
    first, again = (torch.load(tmp_path / path, weights_only=False)["state_dict"] for path in paths)
    assert all(torch.equal(first[name], again[name]) for name in first)


REFUSED = [
    (
        own("LitNet", "Digits", "space.params.optimizer.momentum=interval(0.5,0.99)"),
        "space.params must leave out optimizer.momentum, which AdamW does not have",
    ),
    (own("LitNet", "Digits", "space.params.optimizer.momentm=interval(0.5,0.99)"), '"optimizer.momentum"?)'),
    (own("Nope"), "model._target_ must name a class that can be imported from"),
    (("model._target_=nowhere.Net", *TINY), 'got "nowhere.Net"'),
    (own("Broken"), "cannot be built: ValueError: no such table"),
    (own("Exits"), "nets.Exits cannot be built: SystemExit: 3"),
    (own("ExitsInTraining"), "must be able to train for one batch, but failed: SystemExit: 4 (nets.py:"),
    (("model._target_=tests.user_modules.exits_at_import.Net", *TINY), "(SystemExit: usage: train.py DATA (exits_at_"),
    (
        own("LitNet", "Cancelled"),
        "data=Cancelled failed in setup: CancelledError: the download was cancelled (data.py:",
    ),
    (own("LitNet", "Digits", "model.wdth=3"), 'got "wdth" (did you mean "width"?): it takes lr, norm, width'),
    (own("LitNet", "Digits", "data.sede=3"), 'data must name arguments of Digits, got "sede"'),
    (own("LitNet", "Digits", "trainer.acumulate_grad_batches=3"), '(did you mean "accumulate_grad_batches"?)'),
    (
        own("LitNet", "Digits", "trainer.gradient_clip=1"),
        "use trainer.gradient_clip_val, which works with every engine",
    ),
    (own("LitNet", "Digits", "model.lr=0.1"), "model.lr must be left out, because it is searched, got 0.1"),
    (own("LitNet", "WithoutTraining"), "data=WithoutTraining must return batches from train_dataloader, got none"),
    (own("LitNet", "Failing"), "data=Failing failed in setup: FileNotFoundError: no file digits.bin"),
    (
        own("LitNet", "Digits", "+trainer.callbacks=[{_target_: nowhere.Callback}]"),
        "trainer.callbacks must be arguments that can be built, got ",
    ),
    (own("LitNet", "EmptyTest"), "data=EmptyTest must return batches from test_dataloader, got no"),
    (
        own("BadlyTested", "WithTest"),
        "failed on its first batch (KeyError: there is no key 'no such table' (nets.py:",
    ),
    (own("LitNet", "Digits", "monitor=val_lss"), '(did you mean "val_loss"?): it logs val_acc, val_loss'),
    (
        own("Stepwise"),
        'got "val_loss", which validation_step logs per step only: log it with on_epoch=True; in val',
    ),
    (
        own("LitNet", "Digits", "monitor=train/loss"),
        "which training_step logs; in validation it logs val_acc, val_loss",
    ),
    (own("LitNte"), f'got "{NETS}.LitNte" (did you mean "{NETS}.LitNet"?)'),
    ((f"model._target_={NETS[:-1]}.LitNet", *own("LitNet")[1:]), f'(did you mean "{NETS}.LitNet"?)'),
    (own("Wanting"), "missing 1 required positional argument: 'backbone': set model.backbone=VALUE"),
    (own("Untrained"), "model=Untrained must return an optimizer from configure_optimizers, got none"),
    (own("LitNet", "Digits", "mode=most"), "mode must be one of min, max"),
    (
        own("Bare"),
        "arms must not name typical, dropout_shared, dropout for a model without dropout sites to search, "
        "got model=Bare with drop, which is out of reach (this pass did not call it",
    ),
    (own("LitNet", "Digits", "arms=[none,batchnorm]"), "unless the configuration says how it gets BatchNorm"),
    (
        own("LitNet", "Digits", "arm_args.batchnorm.nrm=batch", "arms=[none,batchnorm]"),
        'got "nrm" (did you mean "norm"?): it takes lr, norm, width',
    ),
    (own("LitNet", "Digits", "arm_args.batchnrm.norm=batch"), '(did you mean "batchnorm"?)'),
    (own("LitNet", "Digits", "batchnorm.replace=identity"), "needs a module with BatchNorm, and LitNet has none"),
    (own("LitNet", "Digits", "trainer.max_steps=3"), "trainer.max_steps must be left out"),
    (
        own("Manual", "Digits", "engine=vectorized"),
        "engine=vectorized needs a module and data that can train vectorized",
    ),
    ((f"data._target_={DATA}.Digits",), "model mlp needs input_shape, classes"),
    (("batchnorm.replace=identity",), "batchnorm.replace=identity needs a module with BatchNorm, and mlp has none"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(cli: Cli, words: tuple[str, ...], message: str):
    ended = cli(*words)
    assert ended.status == 2
    assert message in ended.err
    assert ended.err.startswith("dropsearch: ")
    assert ended.err.count("\n") == 1, "one line"
    assert ended.left == []


def test_a_monitor_that_is_no_number_ends_the_run(cli: Cli):
    ended = cli(*own("Nan", "Digits", "study.n_trials=5", "arms=[none]", "engine=sequential"))
    assert ended.status == 1
    assert "all failed for the same reason: diverged: val_loss=nan after epoch 1" in ended.err


def test_where_too_few_trials_failed_to_end_it_the_run_says_that_none_was_completed(cli: Cli):
    ended = cli(*own("Nan", "Digits", "arms=[none]", "engine.processes=1", "engine.width=2"))
    assert ended.status == 1
    assert "No trial was completed" in ended.out
    assert "most often with: diverged: val_loss=nan after epoch 1" in " ".join(ended.out.split())
    assert "differs between vectorized and sequential" not in " ".join(ended.out.split())
    assert "results.json." in ended.out, "there are no models"


def weights(folder: Path, arm: str) -> set[str]:
    import torch

    return set(torch.load(folder / "out" / "best" / f"{arm}.ckpt", weights_only=False)["state_dict"])


def test_an_argument_that_is_named_gives_an_arm_its_batchnorm(cli: Cli, tmp_path: Path):
    ended = cli(*own("LitNet", "Digits", "arms=[none,batchnorm]", "arm_args.batchnorm.norm=batch", "engine=sequential"))
    assert ended.status == 0, ended.err
    assert "norm.running_mean" in weights(tmp_path, "batchnorm")
    assert "norm.running_mean" not in weights(tmp_path, "none")
    assert ended.out.startswith("LitNet on Digits: plain or BatchNorm?")


def test_batchnorm_that_is_there_can_be_taken_away_from_the_arms_without_it(cli: Cli, tmp_path: Path):
    arrayed = ("engine=vectorized", "engine.width=2", "engine.processes=1")
    ended = cli(*own("Normed", "Digits", "arms=[none,batchnorm]", "batchnorm.replace=identity", *arrayed))
    assert ended.status == 0, ended.err
    assert "norm.running_mean" in weights(tmp_path, "batchnorm")
    assert "norm.running_mean" not in weights(tmp_path, "none")


def test_the_plan_says_what_trains_sequentially(cli: Cli):
    ended = cli(*own("Manual", "Digits", "task=plan", "monitor=val_acc", "mode=max"))
    assert ended.status == 0, ended.err
    assert "(the module uses manual optimization (nets.py:" in " ".join(ended.out.split())
    assert ended.left == []


def test_manual_optimisation_with_two_optimisers_is_searched(cli: Cli, tmp_path: Path):
    ended = cli(*own("Manual", "Digits", "arms=[dropout]", "engine.processes=1"))
    assert ended.status == 0, ended.err
    found = results(tmp_path)
    assert {trial["state"] for trial in found["arms"]["dropout"]["trials"]} == {"COMPLETE"}
    assert "the learning rate is set in the optimizer's parameter groups" in found["notes"]


def test_a_test_set_that_fails_late_leaves_the_report(cli: Cli, tmp_path: Path):
    ended = cli(*own("BadlyTestedLater", "WithTest", "arms=[none,dropout]", "engine=sequential"))
    assert ended.status == 0, ended.err
    assert "the test set could not be measured (" in ended.err
    assert "KeyError: there is no key 'no such table' (nets.py:" in ended.err
    assert "; repeat the command to try again" in ended.err
    assert "Traceback" not in ended.err
    assert "The test set could not be measured" in " ".join((tmp_path / "out" / "report.md").read_text().split())
