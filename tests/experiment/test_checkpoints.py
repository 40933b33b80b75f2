"""A checkpoint that was replaced since the run wrote it is refused, and nothing in it is run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from dropsearch.core.errors import InputError
from dropsearch.experiment.checkpoints import read_weights, verified_content
from dropsearch.study import trial_entry
from tests.tracking.tracked_studies import make_result, make_spec


class Executed:
    """An object that writes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return (Path.touch, (self.witness,))


class Custom:
    """An object of a class that torch does not know, as a user's hyperparameters may have."""


WEIGHTS = OrderedDict(weight=torch.ones(2))
RESULT = make_result(spec=make_spec(0, phase="confirm", configuration=3))


def written(path: Path, **parts: Any) -> str:
    torch.save({"state_dict": WEIGHTS, **parts}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("noted", [True, False])
def test_a_file_of_tensors_is_read(tmp_path: Path, noted: bool) -> None:
    sha256 = written(tmp_path / "a.ckpt", hyper_parameters={"lr": 1e-3})
    result = dataclasses.replace(RESULT, checkpoint_sha256=sha256 if noted else "")
    assert read_weights(tmp_path / "a.ckpt", result)["weight"].tolist() == [1, 1]


def test_objects_of_the_users_classes_are_read_from_the_file_that_was_noted(tmp_path: Path) -> None:
    sha256 = written(tmp_path / "a.ckpt", hyper_parameters={"loss": Custom()})
    result = dataclasses.replace(RESULT, checkpoint_sha256=sha256)
    assert read_weights(tmp_path / "a.ckpt", result)["weight"].tolist() == [1, 1]


@pytest.mark.parametrize("noted", [True, False])
def test_a_replaced_file_is_refused_and_not_run(tmp_path: Path, noted: bool) -> None:
    path, witness = tmp_path / "a.ckpt", tmp_path / "executed"
    sha256 = written(path)
    written(path, hyper_parameters={"loss": Executed(witness)})
    result = dataclasses.replace(RESULT, checkpoint_sha256=sha256 if noted else "")
    with pytest.raises(InputError, match="delete the file"):
        read_weights(path, result)
    assert not witness.exists()


def test_other_weights_in_the_place_are_refused(tmp_path: Path) -> None:
    sha256 = written(tmp_path / "a.ckpt")
    written(tmp_path / "a.ckpt", hyper_parameters={"lr": 1})
    with pytest.raises(InputError, match="its sha256 differs"):
        verified_content(tmp_path / "a.ckpt", dataclasses.replace(RESULT, checkpoint_sha256=sha256))


def test_the_study_keeps_the_sha256() -> None:
    result = dataclasses.replace(RESULT, checkpoint="a.ckpt", checkpoint_sha256="0" * 64)
    assert json.loads(trial_entry.written(result))["checkpoint_sha256"] == "0" * 64
