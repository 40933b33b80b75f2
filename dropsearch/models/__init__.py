"""Built-in networks, and the LightningModule that trains them."""

from __future__ import annotations

from dropsearch.models.classifier import (
    Classifier,
    build_net,
    cnn_classifier,
    mlp_classifier,
    rnn_classifier,
    transformer_classifier,
)
from dropsearch.models.cnn import CNN
from dropsearch.models.mlp import MLP
from dropsearch.models.rnn import RNN
from dropsearch.models.transformer import Transformer

__all__ = [
    "CNN", "MLP", "RNN", "Classifier", "Transformer", "build_net", "cnn_classifier", "mlp_classifier", "rnn_classifier",
    "transformer_classifier",
]  # fmt: skip
