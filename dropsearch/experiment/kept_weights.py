"""Checkpoints that the run wrote, read again only if they are still what it wrote.

A checkpoint may hold objects of the user's classes among its hyperparameters, and to read those is to run code that
the file names. So each file's sha256 is noted in the study when it is written, and compared before it is read.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialResult


def verified_content(path: Path, result: TrialResult) -> bytes:
    """Return the content of a retraining's checkpoint.

    Raises:
        InputError: The file is not the one that was written.
    """
    content = path.read_bytes()
    if result.checkpoint_sha256 and hashlib.sha256(content).hexdigest() != result.checkpoint_sha256:
        raise InputError(
            f"{path} must be the checkpoint that the run wrote, and its sha256 is another: delete the file and give "
            f"the same command again, and {result.spec.key} is trained again"
        )
    return content


def read_weights(path: Path, result: TrialResult) -> dict[str, Any]:
    """Return the weights of a retraining's checkpoint, on the CPU.

    Objects of other classes than tensors and plain values are read only from a file whose sha256 was noted.

    Raises:
        InputError: The file is not the one that was written, or no checkpoint.
    """
    content = verified_content(path, result)
    try:
        parts = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not result.checkpoint_sha256:
            raise InputError(
                f"{path} must hold tensors and plain values only, for the study did not note its sha256: delete the "
                f"file and give the same command again, and {result.spec.key} is trained again"
            ) from error
        parts = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    return parts["state_dict"]
