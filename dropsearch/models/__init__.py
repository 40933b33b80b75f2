"""Built-in networks, and the LightningModule that trains them."""

from __future__ import annotations

from dropsearch.models.checkpoint import load_classifier
from dropsearch.models.classifier import (
    NETS,
    Classifier,
    accuracy,
    build_net,
    cnn_classifier,
    mlp_classifier,
    rnn_classifier,
    transformer_classifier,
)
from dropsearch.models.cnn import CNN
from dropsearch.models.mlp import MLP
from dropsearch.models.network import Network
from dropsearch.models.optimizers import OPTIMIZERS, SCHEDULES, build_optimizer, schedule_factor
from dropsearch.models.rnn import RNN
from dropsearch.models.transformer import Transformer

__all__ = [
    "CNN",
    "MLP",
    "NETS",
    "OPTIMIZERS",
    "RNN",
    "SCHEDULES",
    "Classifier",
    "Network",
    "Transformer",
    "accuracy",
    "build_net",
    "build_optimizer",
    "cnn_classifier",
    "load_classifier",
    "mlp_classifier",
    "rnn_classifier",
    "schedule_factor",
    "transformer_classifier",
]
