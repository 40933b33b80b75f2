"""Loads a classifier from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dropsearch.core.errors import InputError
from dropsearch.models.classifier import Classifier

_PARTS = ("state_dict", "hyper_parameters", "pytorch-lightning_version")


def load_classifier(path: str | Path) -> Classifier:
    """Load a classifier from a checkpoint, on the CPU and in eval mode.

    The file is read with ``weights_only=True``, so no code in it is executed.

    Args:
        path: A checkpoint written by a Lightning Trainer.
        net: The network, if it is not one of `NETS` and so cannot be rebuilt from the checkpoint.

    Raises:
        InputError: The file is missing, is not a checkpoint, or is the checkpoint of another model.
    """
    hparams = _read_hyperparameters(path)
    if "net" not in hparams:
        raise InputError(
            f"{path} must contain a network of dropsearch.models; load another one by "
            "Classifier.load_from_checkpoint(path, net=...)"
        )
    try:
        loaded = Classifier.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a checkpoint of another model can fail in many ways
        raise InputError(f"{path} must be the checkpoint of this Classifier: {_first_line(error)}") from error
    return loaded.eval()


def _read_hyperparameters(path: str | Path) -> Mapping[str, Any]:
    if not Path(path).is_file():
        raise InputError(f"{path} must be a checkpoint, but there is no such file: check the path")
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises zip, pickle, key and end-of-file errors
        raise InputError(
            f"{path} must be a checkpoint, but cannot be read as one ({_first_line(error)}): "
            "write it again, or pass another path"
        ) from error
    missing = [part for part in _PARTS if not isinstance(parts, Mapping) or part not in parts]
    if missing:
        raise InputError(
            f"{path} must be the checkpoint of a Classifier, but has no {missing[0]}: "
            "pass the path of a file that Trainer.save_checkpoint wrote"
        )
    return parts["hyper_parameters"]


def _first_line(error: Exception) -> str:
    # Errors of Lightning and PyTorch span many lines. A first line that ends in a colon needs the second one.
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    shown = lines[:2] if lines and lines[0].endswith(":") else lines[:1]
    return " ".join([f"{type(error).__name__}:", *shown])
