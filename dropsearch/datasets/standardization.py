"""Standardization with the mean and standard deviation of each channel of the training set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dropsearch.datasets.raw_data import RawData
from dropsearch.datasets.splits import Indices

_CHUNK = 4096
"""Number of rows that are converted to float64 at a time."""


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each channel, float32 ``[channels]``."""

    mean: Tensor
    std: Tensor

    def apply(self, x: Tensor, channel: int) -> Tensor:
        """Return `x` standardized as float32; `channel` is the dimension of the channels."""
        shape = [1] * x.ndim
        shape[channel] = -1
        return x.to(torch.float32, copy=True).sub_(self.mean.view(shape)).div_(self.std.view(shape))

    def tensors(self, raw: RawData, rows: Indices) -> tuple[Tensor, ...]:
        """Return the standardized inputs of some examples, for sequences also their lengths, and the labels."""
        x, y = torch.from_numpy(raw.x[rows]), torch.from_numpy(raw.labels[rows])
        if raw.lengths is None:
            return self.apply(x, channel=1), y
        lengths = torch.from_numpy(raw.lengths[rows])
        return self.apply(x, channel=2).masked_fill_(~_frames(x, lengths)[..., None], 0.0), lengths, y


def scale_of(raw: RawData, rows: Indices) -> Scale:
    """Return the scale of some examples, without the padding of sequences."""
    x = torch.from_numpy(raw.x[rows])
    return measure(x if raw.lengths is None else x[_frames(x, torch.from_numpy(raw.lengths[rows]))])


def _frames(x: Tensor, lengths: Tensor) -> Tensor:
    """Return a mask ``[batch, longest]`` of padded sequences that is False for padding."""
    return torch.arange(x.shape[1]) < lengths[:, None]


def measure(x: Tensor) -> Scale:
    """Return the scale of values of any dtype, ``[rows, channels, ...]``; constant channels get a deviation of 1."""
    mean = _mean(x, torch.zeros(x.shape[1], dtype=torch.float64), power=1)
    std = _mean(x, mean, power=2).sqrt()
    return Scale(mean.float(), torch.where(std > 0, std, 1.0).float())


def _mean(x: Tensor, centre: Tensor, power: int) -> Tensor:
    """Return the mean of ``(x - centre) ** power`` by channel, summed in float64."""
    total = torch.zeros_like(centre)
    for rows in x.split(_CHUNK):
        values = rows.double().flatten(2) if x.ndim > 2 else rows.double()[..., None]
        total += (values - centre[:, None]).pow(power).sum((0, 2))
    return total / (x.numel() // x.shape[1])
