"""The run's checkpoints: where they are, and their content after a check that it is unchanged.

A checkpoint may contain objects of user classes in its hyperparameters, and unpickling them runs code. The study
therefore stores each file's sha256, which is compared before reading.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialResult, TrialSpec


def checkpoint(folder: Path, spec: TrialSpec) -> Path:
    """Return the path of the weights of a retraining in a confirmation; those of others are not kept."""
    return folder / spec.arm / f"{spec.configuration}-{spec.seed}.ckpt"


def checkpoint_path(folder: Path, spec: TrialSpec) -> Path | None:
    """Return the path of the weights of a trial's best epoch; None if they are not kept."""
    return checkpoint(folder, spec) if spec.phase == "confirm" else None


def kept_checkpoint(folder: Path, result: TrialResult) -> Path:
    """Return the path of a trial's kept weights, written by this or another process."""
    here, left = checkpoint(folder, result.spec), Path(result.checkpoint)
    return left if result.checkpoint and not here.exists() else here


def verified_content(path: Path, result: TrialResult) -> bytes:
    """Return the content of a retraining's checkpoint."""
    content = path.read_bytes()
    if result.checkpoint_sha256 and hashlib.sha256(content).hexdigest() != result.checkpoint_sha256:
        raise InputError(
            f"{path} must be the checkpoint that the run wrote, but its sha256 differs: delete the file and repeat "
            f"the command to train {result.spec.key} again"
        )
    return content


def read_weights(path: Path, result: TrialResult) -> dict[str, Any]:
    """Return the weights of a retraining's checkpoint, on the CPU.

    Objects other than tensors and plain values are read only if the study stores the file's sha256.

    Raises:
        InputError: The file has changed, or is not a checkpoint.
    """
    content = verified_content(path, result)
    try:
        parts = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not result.checkpoint_sha256:
            raise InputError(
                f"{path} must contain only tensors and plain values, since the study has no sha256 of it: delete the "
                f"file and repeat the command to train {result.spec.key} again"
            ) from error
        parts = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    return parts["state_dict"]
