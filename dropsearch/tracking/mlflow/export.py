"""Export of the winner as an MLflow model that loads without this package and without pickle."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.pytorch import save_model
from mlflow.types import Schema, TensorSpec
from torch import Tensor, nn

from dropsearch.core.errors import first_cause
from dropsearch.tracking.mlflow.session import quiet

ROWS = 4
"""Number of rows of the input example. At least two: torch.export treats a batch size of one as constant."""


class OneInput(nn.Module):
    """A network whose `forward` has one named input, as tracing requires; that of Classifier has `*inputs`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch [batch, ...] to logits [batch, classes]."""
        return self.network(x)


class ZeroPadded(nn.Module):
    """A network for sequences that infers the lengths from zero padding, so that it has one input.

    MLflow's `pyfunc` passes exactly one array to a torch model. The length of a sequence is the position of its last
    step that is not all zeros.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences [batch, steps, features], padded with zeros, to logits [batch, classes]."""
        places = torch.arange(1, x.shape[1] + 1, device=x.device)
        lengths = ((x != 0).any(dim=-1) * places).amax(dim=1)
        return self.network(x, lengths)


def exported(module: nn.Module, example: Any, folder: Path) -> str:
    """Write `module` to `folder` with `save`; return the reason of a failure, or an empty string."""
    try:
        with quiet():
            save(module, example, folder)
    except Exception as error:  # torch.export raises many errors; the checkpoint remains
        return f"The winner cannot be logged as an MLflow model: {first_cause(error)[:300]}"
    return ""


def save(module: nn.Module, example: Any, folder: Path) -> None:
    """Write `module` to `folder` as a traced graph with signature and input example.

    `example` is a batch, one array or a tuple of arrays. A module that takes sequences and lengths is written as one
    that takes only padded sequences, if the outputs are the same.
    """
    inputs = tuple(_few(array) for array in (example if isinstance(example, tuple) else (example,)))
    with torch.no_grad():
        outputs = module(*map(torch.from_numpy, inputs))
    module, inputs = _with_one_input(module, inputs, outputs)
    with warnings.catch_warnings():
        # torch.export warns about the flattened weights of an LSTM or GRU, which are assigned while tracing.
        warnings.filterwarnings("ignore", message="The tensor attributes .* were assigned during export")
        save_model(
            module,
            str(folder),
            signature=_signature(inputs, outputs),
            input_example=inputs[0] if len(inputs) == 1 else inputs,
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"numpy=={np.__version__}"],
            serialization_format="pt2",
        )


def _few(array: Any) -> np.ndarray:
    """Return a few rows of a batch, at least two."""
    rows = np.ascontiguousarray(np.asarray(array)[:ROWS])
    return rows if len(rows) > 1 else np.concatenate([rows, rows])


def _with_one_input(
    module: nn.Module, inputs: tuple[np.ndarray, ...], outputs: Tensor
) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    if len(inputs) == 1:
        return OneInput(module).eval(), inputs
    if len(inputs) != 2 or inputs[1].ndim != 1 or inputs[0].ndim != 3:
        return module, inputs
    alone = ZeroPadded(module).eval()
    with torch.no_grad():
        same = torch.allclose(alone(torch.from_numpy(inputs[0])), outputs)
    return (alone, inputs[:1]) if same else (module, inputs)


def _signature(inputs: tuple[np.ndarray, ...], outputs: Tensor) -> ModelSignature:
    """Return the signature of tensors with a free first dimension."""
    names = [None] if len(inputs) == 1 else [f"input_{i}" for i in range(len(inputs))]
    specs = [TensorSpec(array.dtype, (-1, *array.shape[1:]), name) for name, array in zip(names, inputs, strict=True)]
    output = TensorSpec(outputs.numpy().dtype, (-1, *outputs.shape[1:]))
    return ModelSignature(inputs=Schema([*specs]), outputs=Schema([output]))
