"""A Transformer encoder whose dropout sites can all be controlled."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropsearch.core.constraints import Constraint
from dropsearch.models.layers import ACTIVATIONS, Activation, Depth, Flag, Norm, Width, make_step_norm, normalize
from dropsearch.models.network import Layout, Network, Rates, as_steps, at_least_one, real_steps


class Transformer(Network):
    """A Transformer encoder (Vaswani et al. 2017) with a linear classifier on the mean over real tokens.

    The tokens are rows of images, samples of signals or steps of sequences (see `as_steps`), with learned positions.
    Sites: ``embedding.dropout`` and, for each layer, ``layer1.attention`` (the attention weights),
    ``layer1.attention_residual.dropout``, ``layer1.feedforward.dropout`` and ``layer1.feedforward_residual.dropout``.

    LayerNorms precede each branch and the output (pre-norm, Xiong et al. 2020). A BatchNorm there would directly follow
    a dropout (variance shift, Li et al. 2019). So BatchNorms end the embedding and each branch, between
    the linear layer and the dropout, as in the branches of a ResNet; with `dropout_before_norm` they replace the
    LayerNorms. Their statistics exclude padding.

    Args:
        input_shape: Shape of an example, ``(C, H, W)``, ``(C, L)`` or ``(T, F)``.
        classes: Number of classes.
        layout: Layout of `input_shape`; see `InputShape`.
        norm: "layer" is the usual choice; "none" disables norms.
        dropout: One rate for all sites, or rates by site name.
        width: Number of features of each token; a multiple of `heads`.
        layers: Number of encoder layers.
        heads: Number of attention heads.
        feedforward: Width inside the feedforward branch.
        activation: relu, gelu, tanh, leaky_relu or silu.
        dropout_before_norm: With ``norm="batch"``, whether norms follow dropout.

    Raises:
        ValueError: An option is out of range.
    """

    name = "transformer"

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: Width,
        *,
        layout: Layout | None = None,
        norm: Norm = "layer",
        dropout: Rates = 0.0,
        width: Annotated[Width, Constraint(multiple_of="heads")] = 64,
        layers: Depth = 2,
        heads: Depth = 4,
        feedforward: Width = 128,
        activation: Activation = "gelu",
        dropout_before_norm: Flag = False,
    ) -> None:
        super().__init__(
            input_shape,
            classes,
            layout,
            norm,
            width=width,
            layers=layers,
            heads=heads,
            feedforward=feedforward,
            activation=activation,
            dropout_before_norm=dropout_before_norm,
        )
        ends = norm == "batch" and not dropout_before_norm
        self.embedding = Embedding(self.shape.steps, self.shape.step_features, width, norm if ends else "none")
        for number in range(1, layers + 1):
            layer = EncoderLayer(width, heads, feedforward, activation, norm, norm_at_end=ends)
            self.add_module(f"layer{number}", layer)
        self.output = MeanOutput(width, classes, "none" if ends else norm)
        self.set_rates(dropout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return logits `[batch, classes]`.

        Args:
            x: A batch in this network's layout, with at most the number of steps of `input_shape`.
            lengths: Number of real steps of each example, `[batch]`; later steps are ignored. An empty example is read
                as one step.

        Raises:
            ValueError: The batch has more steps than there are positions.
        """
        tokens = as_steps(x, self.shape.layout)
        real = real_steps(tokens, at_least_one(lengths))
        for layer in self.children():
            tokens = layer(tokens, real)
        return tokens


class Embedding(nn.Module):
    """A linear map of each step, plus a learned vector for its position."""

    def __init__(self, steps: int, features: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)
        self.positions = nn.Parameter(0.02 * torch.randn(steps, width))
        self.norm = make_step_norm(norm, width)
        self.dropout = nn.Dropout()

    def forward(self, steps: Tensor, real: Tensor | None) -> Tensor:
        """Return tokens `[batch, steps, width]`."""
        count, max_steps = steps.shape[1], self.positions.shape[0]
        if count > max_steps:
            raise ValueError(f"a batch must have at most the {max_steps} steps of input_shape, got {count}")
        tokens = self.linear(steps) + self.positions[:count]
        return self.dropout(normalize(self.norm, tokens, real))


class EncoderLayer(nn.Module):
    """An attention branch and a feedforward branch, each added to its input."""

    def __init__(
        self, width: int, heads: int, feedforward: int, activation: Activation, norm: Norm, *, norm_at_end: bool
    ) -> None:
        super().__init__()
        before, end = ("none", norm) if norm_at_end else (norm, "none")
        self.attention_norm = make_step_norm(before, width)
        self.attention = Attention(width, heads)
        self.attention_residual = Residual(make_step_norm(end, width))
        self.feedforward_norm = make_step_norm(before, width)
        self.feedforward = nn.Sequential(
            OrderedDict(
                expand=nn.Linear(width, feedforward),
                activation=ACTIVATIONS[activation](),
                dropout=nn.Dropout(),
                contract=nn.Linear(feedforward, width),
            )
        )
        self.feedforward_residual = Residual(make_step_norm(end, width))

    def forward(self, tokens: Tensor, real: Tensor | None) -> Tensor:
        """Return tokens of the same shape."""
        branch = self.attention(normalize(self.attention_norm, tokens, real), real)
        tokens = self.attention_residual(tokens, branch, real)
        branch = self.feedforward(normalize(self.feedforward_norm, tokens, real))
        return self.feedforward_residual(tokens, branch, real)


class Attention(nn.Module):
    """Multi-head self-attention; `p` is the rate of dropping attention weights.

    It equals ``nn.MultiheadAttention`` with the same weights, but always calls `scaled_dot_product_attention`, both in
    training and in evaluation, without a fast path.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.p = 0.0
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        """Return `[batch, steps, width]`; each token attends to the steps where `real` is True."""
        # [batch, steps, 3 * width] -> three of [batch, heads, steps, width / heads]
        query, key, value = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if real is None else real[:, None, None, :]
        rate = self.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=rate)
        return self.projection(attended.transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        """Return heads and rate for the module's representation."""
        return f"heads={self.heads}, p={self.p}"


class Residual(nn.Module):
    """Adds a branch to the residual stream, after an optional norm and dropout."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.dropout = nn.Dropout()

    def forward(self, tokens: Tensor, branch: Tensor, real: Tensor | None) -> Tensor:
        """Return `tokens` plus the branch after norm and dropout."""
        return tokens + self.dropout(normalize(self.norm, branch, real))


class MeanOutput(nn.Module):
    """A linear classifier on the mean over real tokens."""

    def __init__(self, width: int, classes: int, norm: Norm) -> None:
        super().__init__()
        self.norm = make_step_norm(norm, width)
        self.linear = nn.Linear(width, classes)

    def forward(self, tokens: Tensor, real: Tensor | None) -> Tensor:
        """Return logits `[batch, classes]`."""
        tokens = normalize(self.norm, tokens, real)
        if real is None:
            return self.linear(tokens.mean(1))
        weight = real.unsqueeze(-1).to(tokens.dtype)
        return self.linear((tokens * weight).sum(1) / weight.sum(1))
