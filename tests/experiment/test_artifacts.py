"""What a run leaves behind for its user: files, commands that do what they say, and runs in MLflow."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from dropsearch.config.compose import register_schemas, typed
from dropsearch.core.errors import InputError
from dropsearch.experiment.provenance import reload_command
from dropsearch.experiment.tasks import run
from tests.experiment.conftest import MEASURED, in_this_process, shell_lines
from tests.experiment.forked_runs import RunForker

OVERRIDES = (
    *(override for override in MEASURED if not override.startswith(("tracking", "trainer.max_epochs", "study"))),
    "arms=[none,both]",
    "trainer.max_epochs=4",
    "study.n_trials=5",
    "pruner.n_startup_trials=1",
    "pruner.warmup_epochs=0",
    "tracking.log_model=false",
    'output_dir="it\'s here"',
)


@dataclass
class Finished:
    """A run as a user gives it, in a folder whose name has to be quoted; what it printed and left."""

    folder: Path
    printed: str
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.folder / "it's here"

    def command(self, phase: str) -> str:
        """Return the printed command below the line that begins with `phase`."""
        lines = self.printed.replace("\\\n", "").splitlines()
        return next(lines[i + 1].strip() for i, line in enumerate(lines) if line.startswith(phase))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("user")
    status, printed = in_this_process(folder, *OVERRIDES)
    assert status == 0, printed
    done = Finished(folder, printed)
    done.results |= json.loads((done.out / "results.json").read_text())
    return done


@pytest.fixture(scope="module")
def mlflow_runs(finished: Finished) -> dict[str, Any]:
    """Every run by its name, read before a printed command adds to them."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{finished.out / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("mlp-digits")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    curves = {
        run.info.run_id: [point.step for point in client.get_metric_history(run.info.run_id, "val_loss")]
        for run in found
    }
    return {str(run.info.run_name): (run, curves[run.info.run_id]) for run in found}


def test_it_says_first_what_it_will_do(finished: Finished):
    head = " ".join(finished.printed.split("\n\n")[0].split())  # wrapped at 80 columns
    assert head.startswith("mlp on digits: ")
    assert "90 training, 30 validation and 359 test examples of 1x8x8 in 10 classes" in head
    assert "net.input.dropout (input), net.hidden1.dropout (hidden)" in head
    assert "2 arms (none, both) x 5 trials of up to 4 epochs" in head
    assert "the best 2 of each arm on 2 fresh seeds" in head
    assert "sequential on cpu" in head
    assert "sqlite:///it's here/mlflow.db" in head


def test_every_file_is_there(finished: Finished):
    names = {str(path.relative_to(finished.out)) for path in finished.out.rglob("*") if path.is_file()}
    assert {"results.json", "report.html", "report.md", "study.journal", "mlflow.db"} <= names
    assert {f"best/{arm}.{kind}" for arm in ("none", "both") for kind in ("yaml", "ckpt")} <= names
    assert "figures/curves.png" in names
    assert not {name for name in names if name.endswith(".part")}


def test_the_printed_command_loads_the_model(finished: Finished, run_forker: RunForker):
    ended = run_forker.shell(finished.folder, finished.command("To load the model"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Classifier(")
    assert "hydra" not in ended.stderr


def test_the_printed_command_trains_the_configuration_again(
    finished: Finished, mlflow_runs: dict[str, Any], run_forker: RunForker, monkeypatch: pytest.MonkeyPatch
):
    ended = run_forker.shell(finished.folder, finished.command("To train it again"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("epoch ") == 4 + 1, "a line an epoch, and the best"
    kept = next(finished.out.glob("retrained/*/*/best/*.ckpt")).relative_to(finished.folder)
    monkeypatch.chdir(finished.folder)  # commands name Python as seen from the folder in which they are given
    assert shell_lines(ended.stdout)[-1] == reload_command(str(kept.parent.parent), kept.stem)


def test_the_printed_command_opens_the_database_that_was_written(finished: Finished):
    import click
    from mlflow.cli import cli

    words = shlex.split(finished.command("To see every curve"))
    assert words[1:4] == ["-m", "mlflow", "ui"]
    command = cli.get_command(click.Context(cli), "ui")
    assert command is not None
    context = command.make_context("ui", words[4:])
    uri = context.params["backend_store_uri"]
    assert (finished.folder / uri.removeprefix("sqlite:///")).samefile(finished.out / "mlflow.db")


def test_mlflow_has_every_trial_once_in_its_state_with_its_whole_curve(finished: Finished, mlflow_runs: dict[str, Any]):
    status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    for arm, outcome in finished.results["arms"].items():
        for trial in outcome["trials"]:
            tracked, steps = mlflow_runs[f"{arm}/{trial['number']}"]
            assert tracked.info.status == status[trial["state"]]
            assert steps == list(range(trial["epochs"]))
            assert tracked.data.params["seed"] == str(trial["seed"])
            rates = {k: float(v) for k, v in tracked.data.params.items() if k.startswith("rate.")}
            assert rates == {f"rate.{site}": rate for site, rate in trial["rates"].items()}
    kinds = Counter(tracked.data.tags["dropsearch.kind"] for tracked, _ in mlflow_runs.values())
    assert kinds == {"parent": 1, "arm": 2, "confirm": 2, "trial": 2 * 5 + 2 * 2 * 2}


def test_mlflows_parent_run_has_both_reports_and_the_figures(finished: Finished, mlflow_runs: dict[str, Any]):
    from mlflow import MlflowClient

    uri = f"sqlite:///{finished.out / 'mlflow.db'}"
    client, run = MlflowClient(uri, uri), finished.results["tracking"]["run_id"]
    assert {"report.html", "report.md", "results.json"} <= {file.path for file in client.list_artifacts(run)}
    drawn = {path.name for path in (finished.out / "figures").iterdir()}
    assert {Path(file.path).name for file in client.list_artifacts(run, "figures")} == drawn


def test_mlflow_nests_trials_in_arms_in_one_parent(finished: Finished, mlflow_runs: dict[str, Any]):
    parent, _ = mlflow_runs["mlp-digits"]
    assert parent.info.run_id == finished.results["tracking"]["run_id"]
    assert "mlflow.parentRunId" not in parent.data.tags
    above = {"parent": None, "arm": "parent", "confirm": "arm"}
    by_id = {tracked.info.run_id: tracked for tracked, _ in mlflow_runs.values()}
    for tracked in by_id.values():
        kind = tracked.data.tags["dropsearch.kind"]
        if kind != "parent":
            over = by_id[tracked.data.tags["mlflow.parentRunId"]]
            search = tracked.data.tags.get("dropsearch.phase") == "search"
            assert over.data.tags["dropsearch.kind"] == above.get(kind, "arm" if search else "confirm")
            assert (
                over.data.tags.get("dropsearch.arm", tracked.data.tags["dropsearch.arm"])
                == (tracked.data.tags["dropsearch.arm"])
            )


@pytest.mark.parametrize("arm", ["none", "both"])
def test_the_best_of_each_arm_can_be_changed_by_overrides(finished: Finished, tmp_path: Path, arm: str):
    register_schemas()
    with initialize_config_dir(str(finished.out / "best"), version_base="1.3"):
        config = typed(compose(arm, ["retrain.seed=7", f"output_dir={tmp_path}", "trainer.max_epochs=1"]))
    winner = finished.results["arms"][arm]["winner"]
    assert config.retrain.rates == winner["rates"]
    assert (config.task, config.retrain.arm, config.retrain.seed) == ("retrain", arm, 7)
    assert run(config) == 0
    assert (tmp_path / f"{arm}-7" / "best" / f"{arm}.ckpt").exists()


def test_rates_of_another_model_are_refused(finished: Finished, tmp_path: Path):
    register_schemas()
    with initialize_config_dir(str(finished.out / "best"), version_base="1.3"):
        config = typed(compose("both", [f"output_dir={tmp_path}/out", "model.hidden=[]"]))
    with pytest.raises(InputError, match=r"retrain\.rates must name sites of model=mlp") as caught:
        run(config)
    assert "its sites are net.input.dropout" in str(caught.value)
    assert not list(tmp_path.iterdir())
