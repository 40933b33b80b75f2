"""A Transformer encoder whose dropout sites can all be seen."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropsearch.models.input_shape import Layout, as_steps, at_least_one, real_steps
from dropsearch.models.layers import ACTIVATIONS, Activation, Norm, make_step_norm, normalise
from dropsearch.models.network import Network, Rates, require_one_of, require_positive


class Transformer(Network):
    """A Transformer encoder (Vaswani et al. 2017) over steps, averaged over the real ones and classified.

    Rows of images, samples of signals and steps of sequences are the tokens (see `as_steps`), with learned
    positions. Sites: ``embedding.dropout`` and, for each layer, ``layer1.attention`` (the attention weights),
    ``layer1.attention_residual.dropout``, ``layer1.feedforward.dropout`` and
    ``layer1.feedforward_residual.dropout``.

    LayerNorms stand in front of each branch and of the output (pre-norm, Xiong et al. 2020). There a
    BatchNorm would stand right behind a dropout (variance shift, Li et al. 2019), so BatchNorms stand at the
    end of the embedding and of each branch, behind a linear layer and before the dropout, as in a ResNet's
    branches; with `dropout_before_norm` they take the LayerNorms' places. Their statistics leave padding out.

    Args:
        input_shape: Of one example, ``(C, H, W)``, ``(C, L)`` or ``(T, F)``.
        classes: How many classes.
        layout: How `input_shape` is read; see `InputShape`.
        norm: "layer" is the usual one; "none" leaves norms out.
        dropout: One rate for all sites, or rates by site name.
        width: Of each token; a multiple of `heads`.
        layers: How many encoder layers.
        heads: How many attention heads.
        feedforward: The width inside the feedforward branch.
        activation: relu, gelu, tanh, leaky_relu or silu.
        dropout_before_norm: With ``norm="batch"``, put the norms right behind the dropouts.

    Raises:
        ValueError: An option is out of its range.
    """

    name = "transformer"

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        *,
        layout: Layout | None = None,
        norm: Norm = "layer",
        dropout: Rates = 0.0,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        feedforward: int = 128,
        activation: Activation = "gelu",
        dropout_before_norm: bool = False,
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
        for key in ("width", "layers", "heads", "feedforward"):
            require_positive(key, self._options[key])
        require_one_of("activation", activation, ACTIVATIONS)
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
            x: A batch in this network's layout, with at most as many steps as `input_shape` has.
            lengths: `[batch]`, the real steps of each example; what stands behind them is not read. An empty
                example counts as one step.

        Raises:
            ValueError: The batch has more steps than there are positions.
        """
        tokens = as_steps(x, self.shape.layout)
        real = real_steps(tokens, at_least_one(lengths))
        for layer in self.children():
            tokens = layer(tokens, real)
        return tokens


class Embedding(nn.Module):
    """A linear map of each step and a learned vector of its position."""

    def __init__(self, steps: int, features: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)
        self.positions = nn.Parameter(0.02 * torch.randn(steps, width))
        self.norm = make_step_norm(norm, width)
        self.dropout = nn.Dropout()

    def forward(self, steps: Tensor, real: Tensor | None) -> Tensor:
        """Return tokens `[batch, steps, width]`."""
        count, most = steps.shape[1], self.positions.shape[0]
        if count > most:
            raise ValueError(f"a batch must have at most the {most} steps of input_shape, got {count}")
        tokens = self.linear(steps) + self.positions[:count]
        return self.dropout(normalise(self.norm, tokens, real))


class EncoderLayer(nn.Module):
    """Attention, then a feedforward branch, each added to its input."""

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        activation: Activation,
        norm: Norm,
        *,
        norm_at_end: bool,
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
        branch = self.attention(normalise(self.attention_norm, tokens, real), real)
        tokens = self.attention_residual(tokens, branch, real)
        branch = self.feedforward(normalise(self.feedforward_norm, tokens, real))
        return self.feedforward_residual(tokens, branch, real)


class Attention(nn.Module):
    """Self-attention of several heads; `p` is the rate at which attention weights are dropped.

    With the same weights it equals ``nn.MultiheadAttention`` (a test says so), but it calls
    `scaled_dot_product_attention` itself in training and evaluation alike, with no fast path.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got width={width}, heads={heads}")
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
        """Show heads and rate where the module is printed."""
        return f"heads={self.heads}, p={self.p}"


class Residual(nn.Module):
    """Adds a branch, normalised where asked for, after dropout."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.dropout = nn.Dropout()

    def forward(self, tokens: Tensor, branch: Tensor, real: Tensor | None) -> Tensor:
        """Return `tokens` plus what is kept of the branch."""
        return tokens + self.dropout(normalise(self.norm, branch, real))


class MeanOutput(nn.Module):
    """The classifier on the mean over real tokens."""

    def __init__(self, width: int, classes: int, norm: Norm) -> None:
        super().__init__()
        self.norm = make_step_norm(norm, width)
        self.linear = nn.Linear(width, classes)

    def forward(self, tokens: Tensor, real: Tensor | None) -> Tensor:
        """Return logits `[batch, classes]`."""
        tokens = normalise(self.norm, tokens, real)
        if real is None:
            return self.linear(tokens.mean(1))
        weight = real.unsqueeze(-1).to(tokens.dtype)
        return self.linear((tokens * weight).sum(1) / weight.sum(1))
