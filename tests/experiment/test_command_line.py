"""The command line as the shell sees it, and what Hydra gives it: help, completion, sweeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.experiment.conftest import LIGHT, Cli
from tests.experiment.forked_runs import RunForker

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "lightning", "mlflow", "optuna", "sklearn", "scipy", "numpy", "matplotlib", "sqlalchemy"}


def shell(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{folder}:{os.environ['PATH']}"}
    environment |= {"OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def module(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return shell(folder, sys.executable, *arguments)


WITHOUT_TRAINING = (["--help"], ["--cfg", "job"], ["study.n_trials=0"], ["-m", "model=mlp,foo"])
EACH = """
import json, sys
from hydra.core.global_hydra import GlobalHydra
from dropsearch.__main__ import main

found = {}
for words in json.loads(sys.argv[1]):
    sys.argv = ["dropsearch", *words]
    GlobalHydra.instance().clear()
    try:
        main()
    except SystemExit:
        pass
    found[" ".join(words)] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


def test_what_needs_no_training_imports_nothing_heavy(tmp_path: Path):
    ended = module(tmp_path, "-c", EACH, json.dumps(WITHOUT_TRAINING))
    found = json.loads(ended.stdout.splitlines()[-1])
    assert len(found) == len(WITHOUT_TRAINING)
    assert all("hydra" in imported for imported in found.values())
    assert {words: HEAVY & {*imported} for words, imported in found.items() if HEAVY & {*imported}} == {}


def test_the_shell_sees_status_two_and_one_line(tmp_path: Path, run_forker: RunForker):
    early = module(tmp_path, "-m", "dropsearch", "model=mlpp")  # refused before the heavy imports, and after them
    late = run_forker.python(tmp_path, "-m", "dropsearch", "data=mnist")
    assert (early.returncode, late.returncode) == (2, 2)
    assert (early.stderr.count("\n"), late.stderr.count("\n")) == (1, 1)
    assert list(tmp_path.iterdir()) == []


def test_help_says_what_it_is_and_how_to_go_on(cli: Cli):
    ended = cli("--help")
    assert ended.status == 0
    assert ended.out.startswith("dropsearch searches the dropout rate of each layer of a model")
    assert ended.out.count("python -m dropsearch") >= 4
    assert "README.md" in ended.out
    assert 'eval "$(dropsearch -sc install=bash)"' in ended.out
    assert max(map(len, ended.out.splitlines())) <= 120


def test_the_configuration_in_use_can_be_shown(cli: Cli):
    ended = cli("--cfg", "job", "model=cnn", "study.n_trials=7")
    assert ended.status == 0
    assert "  n_trials: 7\n" in ended.out
    assert "  channels:\n" in ended.out
    assert ended.left == []


def test_where_it_comes_from_can_be_shown(run_forker: RunForker, tmp_path: Path):
    ended = run_forker.python(tmp_path, "-m", "dropsearch", "--info", "defaults", "model=cnn")
    assert ended.returncode == 0
    assert "model/cnn" in ended.stdout
    assert list(tmp_path.iterdir()) == []


COMPLETE = """
eval "$(dropsearch -sc install=bash)"
for typed in "$@"; do
  COMP_LINE="dropsearch $typed"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE); COMP_CWORD=1
  hydra_bash_completion
  echo "${COMPREPLY[*]}"
done
"""
COMPLETED = {
    "model=": "model=cnn model=mlp model=rnn model=transformer",
    "study.": "study.allow_code_changes= study.n_trials= study.name= study.repeats= study.retry_failed= "
    "study.storage= study.timeout= study.warm_start=",
    "sampler=t": "sampler=tpe",
}


def test_bash_completes_what_is_typed(tmp_path: Path):
    script = tmp_path / "dropsearch"  # as the console script that pip makes
    script.write_text(f"#!{sys.executable}\nfrom dropsearch.__main__ import main\nmain()\n")
    script.chmod(0o755)
    ended = shell(tmp_path, "bash", "-c", COMPLETE, "bash", *COMPLETED)
    assert [line.split() for line in ended.stdout.splitlines()] == [words.split() for words in COMPLETED.values()]


def test_a_sweep_runs_every_pair_and_leaves_no_folders_of_hydra(cli: Cli, tmp_path: Path):
    small = [override for override in LIGHT if not override.startswith(("model.", "confirm."))]
    once = ["confirm.top_k=1", "confirm.seeds=1", "study.n_trials=1", "trainer.max_epochs=1", "arms=[none]"]
    ended = cli("-m", "model=mlp,cnn", "data=digits,mnist1d", *small, *once)
    assert ended.status == 0, ended.err
    runs = {path.parent.name for path in (tmp_path / "outputs").glob("*/results.json")}
    assert runs == {"mlp-digits", "mlp-mnist1d", "cnn-digits", "cnn-mnist1d"}
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    assert not [path for path in ended.left if ".hydra" in path or path.endswith(".log")]
