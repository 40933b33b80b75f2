"""Reading a classifier back from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dropsearch.core.errors import InputError
from dropsearch.models.classifier import Classifier

_PARTS = ("state_dict", "hyper_parameters", "pytorch-lightning_version")


def load_classifier(path: str | Path, net: nn.Module | None = None) -> Classifier:
    """Return the classifier of a checkpoint, on the CPU, in evaluation mode.

    Nothing in the file is run: it is read with ``weights_only=True``.

    Args:
        path: A checkpoint that a Lightning Trainer wrote.
        net: The network, where it is not one of `NETS` and so cannot be rebuilt from the checkpoint.

    Raises:
        InputError: The file is missing, no checkpoint, or the checkpoint of another model.
    """
    hparams = _read_hyperparameters(path)
    if net is None and "net" not in hparams:
        raise InputError(
            f"{path} must hold a network of dropsearch.models: hand your own over by load_classifier(path, net=...)"
        )
    given: dict[str, Any] = {} if net is None else {"net": net}
    try:
        loaded = Classifier.load_from_checkpoint(path, map_location="cpu", weights_only=True, **given)
    except Exception as error:  # what does not fit fails in many ways, all of them for one reason
        raise InputError(f"{path} must be the checkpoint of this Classifier: {_first_line(error)}") from error
    return loaded.eval()


def _read_hyperparameters(path: str | Path) -> Mapping[str, Any]:
    if not Path(path).is_file():
        raise InputError(f"{path} must be a checkpoint, and there is no such file: check the path")
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, key and end-of-file errors: torch.load promises none of them
        raise InputError(
            f"{path} must be a checkpoint, and cannot be read as one ({_first_line(error)}): "
            "write it again, or give another path"
        ) from error
    missing = [part for part in _PARTS if not isinstance(parts, Mapping) or part not in parts]
    if missing:
        raise InputError(
            f"{path} must be the checkpoint of a Classifier, and has no {missing[0]}: "
            "give the path of a file that Trainer.save_checkpoint wrote"
        )
    return parts["hyper_parameters"]


def _first_line(error: Exception) -> str:
    # Lightning and PyTorch explain themselves over many lines; one that ends in a colon announces the next.
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    told = lines[:2] if lines and lines[0].endswith(":") else lines[:1]
    return " ".join([f"{type(error).__name__}:", *told])
