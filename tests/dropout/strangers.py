"""Modules as strangers write them, each with a batch and the inventory that it must give.

``STRANGERS`` holds one entry for each habit. A plain module's batch is what its forward takes (one argument, a
tuple of arguments, or a dict of keyword arguments); a Lightning module's is what its ``training_step`` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Row = tuple[str, str, float, int, bool]
"""Name, kind, rate, activations, controllable."""


@dataclass(frozen=True)
class Stranger:
    """Somebody's module."""

    make: Callable[[], nn.Module]
    batch: Callable[[], Any]
    sites: tuple[Row, ...]


class Base(nn.Module):
    """The first of three generations."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.body = nn.Linear(5, width)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(torch.relu(self.body(x)))


class Child(Base):
    def __init__(self, width: int = 6) -> None:
        super().__init__(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(super().forward(x))


class Grandchild(Child):
    """Drops once more, in the style of a subclass's author."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, p=0.1, training=self.training))


class InAList(nn.Module):
    """Keeps dropouts in a plain list: they are not registered, and `.eval()` never reaches them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(5, 5) for _ in range(2)])
        self.drops = [nn.Dropout(0.1), nn.Dropout(0.4)]

    def forward(self, x: Tensor) -> Tensor:
        for layer, drop in zip(self.layers, self.drops, strict=True):
            x = drop(layer(x).relu())
        return x


class InALambda(nn.Module):
    """Builds its blocks of closures over itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.drop = nn.Dropout(0.3)
        self.blocks: list[Callable[[Tensor], Tensor]] = [
            lambda x: self.drop(self.first(x)),
            lambda x: F.dropout(self.second(x), 0.25, self.training),
        ]

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class LoopingNet(nn.Module):
    """Drops functionally in a loop, and never says where."""

    def __init__(self, p: float = 0.15) -> None:
        super().__init__()
        self.p = p
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = F.dropout(self.step(x).tanh(), self.p, self.training)
        return x


class Reusing(nn.Module):
    """One dropout module under two names, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 8), nn.Linear(8, 3)
        self.drop1 = self.drop2 = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop2(self.fc1(self.drop1(x)).relu()))


class Conditional(nn.Module):
    """One dropout stands behind an `if`, another is only a place to keep a number."""

    def __init__(self, deep: bool = False) -> None:
        super().__init__()
        self.deep = deep
        self.fc = nn.Linear(5, 5)
        self.always, self.sometimes, self.holder = nn.Dropout(0.2), nn.Dropout(0.3), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.always(self.fc(x))
        if self.deep:
            x = self.sometimes(x)
        return F.dropout(x, self.holder.p, self.training)


class SmallVision(nn.Module):
    """A convolutional net with BatchNorm and functional dropout of channels and features."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(8 * 4 * 4, 16), nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.dropout2d(F.relu(self.conv2(x)), 0.1, self.training)
        x = F.dropout(x.flatten(1), 0.25, self.training)
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.5, training=self.training))


class ResNetlet(nn.Module):
    """Residual branches whose one ReLU is used throughout; no dropout at all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.relu(self.bn(self.conv(x)) + x)
        x = self.relu(self.conv(x) + x)
        return self.head(x.mean((2, 3)))


class Tagger(nn.Module):
    """Tags the words of sentences of different lengths: packed, bidirectional, two layers, weights tied."""

    def __init__(self, words: int = 20, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width, padding_idx=0)
        self.drop = nn.Dropout(0.1)
        self.lstm = nn.LSTM(width, width // 2, num_layers=2, dropout=0.3, bidirectional=True, batch_first=True)
        self.out = nn.Linear(width, words, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.drop(self.embed(words)), lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.out(F.dropout(states, 0.2, self.training))


class OneLayer(nn.Module):
    """Believes that the dropout of its one-layer LSTM does something."""

    def __init__(self) -> None:
        super().__init__()
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says here, nobody reads
            self.lstm = nn.LSTM(4, 5, dropout=0.5, batch_first=True)
        self.gru = nn.GRU(5, 5, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.lstm(x)[0])[0]


class Encoder(nn.Module):
    """PyTorch's own Transformer encoder over embedded tokens, with a padding mask."""

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=rate, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens), src_key_padding_mask=padding).mean(1))


class TwoAttentions(nn.Module):
    """`nn.MultiheadAttention` whose weights are asked for, and then not; no rate is set."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, dropout=rate, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attend(x, x, x)[0]
        return self.attend(x, x, x, need_weights=False)[0]


class OwnAttention(nn.Module):
    """Attention written out, as in many tutorials: a dropout right behind the softmax, another on the branch."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attn_drop, self.proj_drop = nn.Dropout(0.1), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        weights = self.attn_drop((q @ k.transpose(-2, -1)).softmax(-1))
        return x + self.proj_drop(self.proj(weights @ v))


class DropPath(nn.Module):
    """Stochastic depth as model libraries write it: a whole example loses the branch."""

    def __init__(self, drop_prob: float = 0.2) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        return x * x.new_empty((x.shape[0], *(1 for _ in x.shape[1:]))).bernoulli_(keep).div_(keep)


class Block(nn.Module):
    """A residual block with stochastic depth, random ReLU and noise of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc, self.act = nn.LayerNorm(6), nn.Linear(6, 6), nn.RReLU()
        self.drop, self.drop_path, self.off = nn.Dropout(0.1), DropPath(0.2), DropPath(0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.drop(self.act(self.fc(self.norm(x)))))
        if self.training:
            x = x + 0.01 * torch.randn_like(x)
        return self.off(x)


class Moving(nn.Module):
    """Its buffers change with each pass, its dropout grows with a step counter, and it keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros(4))
        self.seen: list[Tensor] = []
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.calls += 1
        self.average = 0.9 * self.average + 0.1 * x.detach().mean(0)
        self.seen.append(x)
        return F.dropout(self.fc(x - self.average), 0.4, self.training)


class Renormed(nn.Module):
    """Touches its own parameters in a forward pass: an embedding with `max_norm`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4, max_norm=0.5)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.embed(x)).relu_()


class TwoInputs(nn.Module):
    """Takes two arguments and returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)
        self.drop = nn.Dropout(0.0)

    def forward(self, image: Tensor, table: Tensor) -> dict[str, Tensor]:
        joined = self.left(image) + self.right(table)
        return {"logits": self.drop(joined), "norm": joined.norm()}


class Litten(lightning.LightningModule):
    """Functional dropout, BatchNorm and logging of its own, as a tutorial has it; no dropout module anywhere."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.fc1, self.bn, self.fc2 = nn.Linear(5, width), nn.BatchNorm1d(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.dropout(F.relu(self.bn(self.fc1(x))), p=0.3, training=self.training))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.log_dict({"val_loss": F.cross_entropy(logits, y), "val_acc": (logits.argmax(-1) == y).float().mean()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class LittenMore(Litten):
    """The subclass of a subclass, which drops in its step as well and returns a dict."""

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        x, y = batch
        logits = self(F.dropout(x, 0.1, self.training))
        self.log("train_loss", F.cross_entropy(logits, y))
        return {"loss": F.cross_entropy(logits, y), "logits": logits}


class Frozen(Litten):
    """A pretrained backbone that stays frozen and in eval mode, whatever `train()` says."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Base(5)
        self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.backbone(x))


class DictTagger(lightning.LightningModule):
    """Takes a dict of tensors, sentences of different lengths in it, and asks its Trainer for the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.tagger = Tagger()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits = self.tagger(batch["words"], batch["lengths"])
        tags = batch["tags"][:, : logits.shape[1]]
        loss = F.cross_entropy(logits.transpose(1, 2), tags, ignore_index=0)
        self.log("train_loss", loss * (1 if self.trainer.max_epochs else 0), batch_size=len(tags))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self.tagger(batch["words"], batch["lengths"])
        tags = batch["tags"][:, : logits.shape[1]]
        self.log("val_loss", F.cross_entropy(logits.transpose(1, 2), tags, ignore_index=0), batch_size=len(tags))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def pytorch_lightning_net() -> nn.Module:
    """A module of the other package name under which Lightning is installed."""
    import pytorch_lightning as pl

    class OtherName(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 3))

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

    return OtherName()


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
        (f"{prefix}lstm", "rnn", 0.3, 20, False),
        (prefix.rstrip(".") or "model", "rnn", 0.2, 30, True),
    )


def encoder_layer(name: str, rate: float) -> tuple[Row, ...]:
    return (
        (f"{name}.self_attn", "attention", rate, 32, True),
        (f"{name}.dropout1", "residual", rate, 32, True),
        (f"{name}.dropout", "hidden", rate, 64, True),
        (f"{name}.dropout2", "residual", rate, 32, True),
    )


STRANGERS: dict[str, Stranger] = {
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
        tuple((name, "hidden", 0.15, 4, True) for name in ("model", "model#2", "model#3")),
    ),
    "loop_at_zero": Stranger(
        lambda: LoopingNet(0.0),
        features(2, 4),
        tuple((name, "hidden", 0.0, 4, True) for name in ("model", "model#2", "model#3")),
    ),
    "reused": Stranger(
        Reusing, features(4, 5), (("drop1", "input", 0.5, 5, True), ("drop1#2", "hidden", 0.5, 8, True))
    ),
    "conditional": Stranger(
        Conditional,
        features(4, 5),
        (
            ("always", "hidden", 0.2, 5, True),
            ("model", "hidden", 0.0, 5, True),
            ("sometimes", "hidden", 0.3, 0, False),
            ("holder", "hidden", 0.0, 0, False),
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
        OneLayer, features(2, 3, 4), (("lstm", "rnn", 0.5, 0, False), ("gru", "rnn", 0.0, 15, False))
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
        (("attend", "attention", 0.0, 50, True), ("attend#2", "attention", 0.0, 50, True)),
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
    "pytorch_lightning": Stranger(pytorch_lightning_net, labelled, (("net.2", "hidden", 0.2, 4, True),)),
}
