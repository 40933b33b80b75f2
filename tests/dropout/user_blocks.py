"""Recurrent layers, attention and residual blocks as users write them."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


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
