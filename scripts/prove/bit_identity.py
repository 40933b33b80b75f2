"""Print a sha256 of all that small runs find, so that two versions of the program can be compared bit by bit.

    python scripts/prove/bit_identity.py [CASE ...]

The four built-in models and the module of `examples/user_module.py` each run with the sequential and the vectorized
engine. Everything random is fixed: seed, random sampler, no pruner, one process. A line holds the case and the hashes
of its trials (parameters, rates and curves of all studies), its test scores, and what was measured on the winners.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

ROOT = Path(__file__).parents[2]
SHARED = (
    "sampler=random",
    "pruner=none",
    "tracking=none",
    "seed=3",
    "study.n_trials=4",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "confirm.top_k=1",
    "confirm.seeds=2",
    "engine.processes=1",
    "evidence.monte_carlo=[1,2]",
    "evidence.severities=1",
)
BUILT_IN = ("data=digits", "data.train_size=128", "data.batch_size=32")
USER = ("model._target_=user_module.LitNet", "model.width=4", "data._target_=user_module.Digits")
MODELS: Mapping[str, tuple[str, ...]] = {
    "mlp": ("model=mlp", "model.hidden=[16,12]", *BUILT_IN),
    "cnn": ("model=cnn", "model.channels=[4,6]", "model.head=[8]", *BUILT_IN),
    "rnn": ("model=rnn", "model.hidden_size=8", *BUILT_IN),
    "transformer": ("model=transformer", "model.width=8", "model.heads=2", "model.feedforward=16", *BUILT_IN),
    "user": USER,
    "params": ("model=mlp", "model.hidden=[16]", "space.params={model.norm: choice(none,layer)}", *BUILT_IN),
}
ENGINES: Mapping[str, tuple[str, ...]] = {
    "sequential": ("engine=sequential",),
    "vectorized": ("engine=vectorized", "engine.width=4"),
}


def main() -> None:
    """Run the cases that are named, or all, and print a line for each."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = [f"{model}/{engine}" for model in MODELS for engine in ENGINES]
    given.add_argument("cases", nargs="*", choices=[[], *cases], default=[], metavar="CASE", help=", ".join(cases))
    for case in given.parse_args().cases or cases:
        with tempfile.TemporaryDirectory(prefix="dropsearch-bits-") as folder:
            print(f"{case:24} {_hashes(case, Path(folder))}", flush=True)


def _hashes(case: str, folder: Path) -> str:
    model, _, engine = case.partition("/")
    out = folder / "out"
    command = [sys.executable, "-m", "dropsearch", *SHARED, *MODELS[model], *ENGINES[engine], f"output_dir={out}"]
    places = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT / "examples", env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"exit status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    results = json.loads((out / "results.json").read_text())
    evidence = results["evidence"] or {}
    parts = {
        "trials": _trials(out / "study.journal"),
        "test": {
            name: [arm["winner"][key] for key in ("test_loss", "test_acc")] for name, arm in results["arms"].items()
        },
        "evidence": [evidence.get("arms"), evidence.get("contrasts")],
    }
    return " ".join(f"{name} {_digest(part)}" for name, part in parts.items())


def _trials(journal: Path) -> Any:
    """Return what every trial of every study holds, without times and paths, in an order that no engine decides."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    found = {}
    for name in sorted(optuna.get_all_study_names(storage)):
        trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        assert trials, f"study {name} is empty"
        rows = [
            [trial.params, {**json.loads(trial.user_attrs["result"]), "seconds": 0, "checkpoint": ""}]
            for trial in trials
        ]
        found[name.partition("/")[2]] = sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
    return found


def _digest(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
