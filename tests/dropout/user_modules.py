"""Modules as users write them, each with a batch and the inventory that it must give.

``USER_MODULES`` holds one entry for each habit. A plain module's batch is what its forward takes (one argument, a
tuple of arguments, or a dict of keyword arguments); a Lightning module's is what its ``training_step`` takes.
"""

from __future__ import annotations

import copy
import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.dropout.user_blocks import Encoder, OneLayer, OwnAttention, Tagger, TwoAttentions
from tests.dropout.user_lightning import DictTagger, Frozen, Litten, LittenMore, pytorch_lightning_net
from tests.dropout.user_nets import (
    Conditional,
    Grandchild,
    InALambda,
    InAList,
    LoopingNet,
    Moving,
    Renormed,
    ResNetlet,
    Reusing,
    SmallVision,
    TwoInputs,
)

Row = tuple[str, str, float, int, bool]
"""Name, kind, rate, activations, controllable."""


@dataclass(frozen=True)
class Stranger:
    """Somebody's module."""

    make: Callable[[], nn.Module]
    batch: Callable[[], Any]
    sites: tuple[Row, ...]


def kept_copy(module: nn.Module, kept: str) -> nn.Module:
    """Return a copy by deepcopy, or by pickle as `torch.save` writes a whole module."""
    if kept == "deepcopy":
        return copy.deepcopy(module)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def features(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def labelled() -> tuple[Tensor, Tensor]:
    return features(6, 5)(), torch.tensor([0, 1, 2, 0, 1, 2])


def sentences() -> dict[str, Tensor]:
    words = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 2, 0, 0], [1, 2, 0, 0, 0]])
    return {"words": words, "lengths": torch.tensor([5, 3, 2]), "tags": words}


def tagger_sites(prefix: str = "") -> tuple[Row, ...]:
    return (
        (f"{prefix}drop", "embedding", 0.1, 30, True),
        (f"{prefix}lstm", "rnn", 0.3, 20, True),
        (prefix.rstrip(".") or "model", "rnn", 0.2, 30, True),
    )


def encoder_layer(name: str, rate: float) -> tuple[Row, ...]:
    return (
        (f"{name}.self_attn", "attention", rate, 32, True),
        (f"{name}.dropout1", "residual", rate, 32, True),
        (f"{name}.dropout", "hidden", rate, 64, True),
        (f"{name}.dropout2", "residual", rate, 32, True),
    )


def hugging_face(name: str, *arguments: str) -> Callable[[], Any]:
    """Return what makes a model or a batch of Hugging Face's; their library is imported where it is asked for."""
    return lambda: getattr(importlib.import_module("tests.user_modules.hugging_face"), name)(*arguments)


ATTENTIONS = ("eager", "sdpa")
BERT: tuple[Row, ...] = (
    ("bert.embeddings.dropout", "embedding", 0.1, 96, True),
    ("bert.encoder.layer.0.attention.self", "attention", 0.2, 72, True),
    ("bert.encoder.layer.0.attention.output.dropout", "residual", 0.1, 96, True),
    ("bert.encoder.layer.0.output.dropout", "residual", 0.1, 96, True),
    ("dropout", "hidden", 0.3, 16, True),
)
GPT2: tuple[Row, ...] = (
    ("transformer.drop", "embedding", 0.1, 96, True),
    ("transformer.h.0.attn", "attention", 0.2, 72, True),
    ("transformer.h.0.attn.resid_dropout", "residual", 0.3, 96, True),
    ("transformer.h.0.mlp.dropout", "residual", 0.3, 96, True),
)
VIT: tuple[Row, ...] = (
    ("vit.embeddings.dropout", "embedding", 0.1, 80, True),
    ("vit.layers.0.attention", "attention", 0.2, 50, True),
    ("vit.layers.0.dropout", "residual", 0.1, 160, True),
)


USER_MODULES: dict[str, Stranger] = {
    "subclass_of_subclass": Stranger(
        Grandchild, features(4, 5), (("model", "input", 0.1, 5, True), ("drop", "hidden", 0.2, 6, True))
    ),
    "list": Stranger(InAList, features(4, 5), (("model", "hidden", 0.1, 5, True), ("model#2", "hidden", 0.4, 5, True))),
    "lambda": Stranger(
        InALambda, features(4, 5), (("drop", "hidden", 0.3, 5, True), ("model", "hidden", 0.25, 5, True))
    ),
    "sequential": Stranger(
        lambda: nn.Sequential(nn.Dropout(0.2), nn.Linear(5, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2)),
        features(4, 5),
        (("0", "input", 0.2, 5, True), ("3", "hidden", 0.5, 4, True)),
    ),
    "loop": Stranger(
        LoopingNet,
        features(2, 4),
        (("model", "hidden", 0.15, 12, True),),
    ),
    "loop_at_zero": Stranger(
        lambda: LoopingNet(0.0),
        features(2, 4),
        (("model", "hidden", 0.0, 12, True),),
    ),
    "reused": Stranger(Reusing, features(4, 5), (("drop1", "input", 0.5, 13, True),)),
    "conditional": Stranger(
        Conditional,
        features(4, 5),
        (
            ("always", "hidden", 0.2, 5, True),
            ("model", "hidden", 0.0, 5, True),
            ("sometimes", "hidden", 0.3, 0, False),
        ),
    ),
    "vision": Stranger(
        SmallVision,
        features(2, 1, 8, 8),
        (
            ("model", "conv", 0.1, 8, True),
            ("model#2", "hidden", 0.25, 128, True),
            ("model#3", "hidden", 0.5, 16, True),
        ),
    ),
    "no_dropout": Stranger(ResNetlet, features(2, 1, 8, 8), ()),
    "tagger": Stranger(
        Tagger, lambda: {key: value for key, value in sentences().items() if key != "tags"}, tagger_sites()
    ),
    "one_layer_lstm": Stranger(
        OneLayer, features(2, 3, 4), (("lstm", "rnn", 0.5, 0, False), ("gru", "rnn", 0.0, 15, True))
    ),
    "encoder": Stranger(
        Encoder,
        lambda: (torch.randint(0, 11, (3, 4)), torch.tensor([[False] * 4, [False] * 4, [False, False, True, True]])),
        (*encoder_layer("encoder.layers.0", 0.1), *encoder_layer("encoder.layers.1", 0.1)),
    ),
    "encoder_at_zero": Stranger(
        lambda: Encoder(0.0),
        lambda: torch.randint(0, 11, (3, 4)),
        (*encoder_layer("encoder.layers.0", 0.0), *encoder_layer("encoder.layers.1", 0.0)),
    ),
    "attention_at_zero": Stranger(
        TwoAttentions,
        features(4, 5, 8),
        (("attend", "attention", 0.0, 100, True),),
    ),
    "own_attention": Stranger(
        OwnAttention,
        features(2, 3, 6),
        (("attn_drop", "attention", 0.1, 9, True), ("proj_drop", "residual", 0.2, 18, True)),
    ),
    "moving_buffers": Stranger(Moving, features(5, 4), (("model", "hidden", 0.4, 4, True),)),
    "renormed": Stranger(Renormed, lambda: torch.arange(6).view(2, 3), (("drop", "embedding", 0.2, 12, True),)),
    "two_inputs": Stranger(
        TwoInputs,
        lambda: {"image": torch.ones(2, 3), "table": torch.ones(2, 2)},
        (("drop", "hidden", 0.0, 4, True),),
    ),
    "lightning": Stranger(Litten, labelled, (("model", "hidden", 0.3, 8, True),)),
    "lightning_subclass": Stranger(
        LittenMore, labelled, (("model", "input", 0.1, 5, True), ("model#2", "hidden", 0.3, 8, True))
    ),
    "frozen_backbone": Stranger(
        Frozen, labelled, (("backbone.drop", "hidden", 0.2, 5, False), ("model", "hidden", 0.3, 8, True))
    ),
    "dict_batch": Stranger(DictTagger, sentences, tagger_sites("tagger.")),
    **{f"bert_{how}": Stranger(hugging_face("bert", how), hugging_face("sentences"), BERT) for how in ATTENTIONS},
    **{f"gpt2_{how}": Stranger(hugging_face("gpt2", how), hugging_face("text"), GPT2) for how in ATTENTIONS},
    **{f"vit_{how}": Stranger(hugging_face("vit", how), hugging_face("images"), VIT) for how in ATTENTIONS},
    "convnext": Stranger(
        hugging_face("convnext"),
        hugging_face("images"),
        (("convnext.encoder.stages.1.layers.0.drop_path", "residual", 0.25, 1, True),),
    ),
    "pytorch_lightning": Stranger(pytorch_lightning_net, labelled, (("net.2", "hidden", 0.2, 4, True),)),
}
