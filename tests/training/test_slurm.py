"""The variables of a SLURM job and its commands change nothing: each of our Trainers is one process."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only

from dropsearch.training.planning.equivalence import check_equivalence
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue, make_factory, make_source, make_specs

JOB = {
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "search",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "3",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "host[1-2]",
}


@pytest.fixture(params=[True, False], ids=["inside a job", "srun is installed"])
def slurm(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if request.param:
        monkeypatch.setattr(rank_zero_only, "rank", 3)  # as Lightning reads it when it is imported in such a job
        for name, value in JOB.items():
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize("width", [0, 2])
@pytest.mark.usefixtures("slurm")
def test_trials_train_and_are_kept(width: int, tmp_path: Path) -> None:
    factory, source, settings = make_factory("mlp"), make_source("mlp"), TrainerSettings(1, "cpu")
    alone = SequentialEngine(factory, source, settings, lambda spec: tmp_path / f"{spec.number}.ckpt")
    array = VectorizedEngine(factory, source, settings, 2, lambda spec: tmp_path / f"{spec.number}.ckpt")
    feed = Queue(make_specs("mlp", 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (array if width else alone).run(feed)
    assert {number: (r.state, r.reason) for number, r in feed.results.items()} == dict.fromkeys(
        (0, 1), ("COMPLETE", "")
    )
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"0.ckpt", "1.ckpt"}
    assert rank_zero_only.rank == 0


@pytest.mark.usefixtures("slurm")
def test_vectorized_training_is_proven_equal() -> None:
    one, two = make_specs("mlp", 2)
    assert check_equivalence(make_factory("mlp"), make_source("mlp"), TrainerSettings(1, "cpu"), (one, two)) == ""
