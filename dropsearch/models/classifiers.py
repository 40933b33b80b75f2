"""Classifiers around the built-in networks: the classes that `model._target_` names in conf/model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from dropsearch.models.build import build_net
from dropsearch.models.classifier import Classifier
from dropsearch.models.cnn import CNN
from dropsearch.models.mlp import MLP
from dropsearch.models.network import Network, Rates
from dropsearch.models.rnn import RNN
from dropsearch.models.transformer import Transformer

_NET = "net."
"""Where `Classifier` keeps its network: sites are named from the LightningModule, rates are given to the network."""


def _around(net: type[Network]) -> Callable[..., Classifier]:
    """Return a function that builds a `Classifier` around a network, with the network's arguments in its signature."""

    def build(
        *,
        dropout: Rates = 0.0,
        optimizer: Mapping[str, Any] | None = None,
        lr: float,
        weight_decay: float,
        **options: Any,
    ) -> Classifier:
        rates = dropout
        if isinstance(dropout, Mapping):
            rates = {site.removeprefix(_NET): rate for site, rate in dropout.items()}
        built = build_net({"name": net.name, **options, "dropout": rates})
        if not torch.cuda.is_available():
            # A CPU's pooling and convolutions then go through memory in order; these nets never `view` an activation.
            built = built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        chosen = dict(optimizer or {})
        named: Any = {"optimizer": chosen.pop("name")} if "name" in chosen else {}
        return Classifier(built, **named, **chosen, lr=lr, weight_decay=weight_decay)

    by_data = ("input_shape", "classes", "layout")
    own = inspect.signature(build, eval_str=True).parameters
    parameters = [
        parameter.replace(
            kind=parameter.KEYWORD_ONLY, default=parameter.empty if name in by_data else parameter.default
        )
        for name, parameter in inspect.signature(net, eval_str=True).parameters.items()
        if name not in own
    ]
    parameters += [parameter for parameter in own.values() if parameter.kind is not parameter.VAR_KEYWORD]
    build.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    build.__name__ = build.__qualname__ = f"{net.name}_classifier"
    build.__doc__ = f"""Build a `Classifier` around a `{net.__name__}`.

    The arguments are those of `{net.__name__}`, of which the data give `input_shape`, `classes` and `layout`, and those
    of the optimizer: its name, options and schedule as a mapping, `lr` and `weight_decay`.
    """
    return build


mlp_classifier = _around(MLP)
cnn_classifier = _around(CNN)
rnn_classifier = _around(RNN)
transformer_classifier = _around(Transformer)
