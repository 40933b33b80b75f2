"""Examples with noise, blur and the like in them, stronger from severity to severity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from dropsearch.analysis.measures.protocol import Examples, Settings
from dropsearch.core.seeds import derived_seed

KEPT_BYTES = 256 << 20
"""Corrupted examples of a data set that together take more are made again for each network."""


@dataclass(frozen=True)
class Features:
    """Features to be corrupted, with the spread of the data that they belong to."""

    x: Tensor
    """[examples, channels, ...], of sequences [examples, steps, features]."""
    std: Tensor
    """Of each channel (of sequences: of each feature) over all examples, so that it broadcasts to `x`."""
    low: Tensor
    high: Tensor
    """The least and the greatest value of each."""


Corruption = Callable[[Features, float, torch.Generator], Tensor]
"""Takes features, an amount from 0 (which changes nothing) and a generator; returns features of the same shape."""


def noise(of: Features, amount: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise whose standard deviation is `amount` times that of the data."""
    return of.x + amount * of.std * _normal(of.x, generator)


def salt_and_pepper(of: Features, amount: float, generator: torch.Generator) -> Tensor:
    """Set a share of `amount` of the features to the least or the greatest value in the data, half of them each."""
    draw = torch.rand(of.x.shape, generator=generator).to(of.x.device)
    return torch.where(draw < amount / 2, of.low, torch.where(draw >= 1 - amount / 2, of.high, of.x))


def blur(of: Features, amount: float, generator: torch.Generator) -> Tensor:
    """Blur images by a Gaussian whose standard deviation is `amount` times their (mean) side."""
    sigma = max(amount * math.sqrt(math.prod(of.x.shape[-2:])), 1e-6)
    radius = math.ceil(3 * sigma) if amount else 0
    steps = torch.arange(-radius, radius + 1, dtype=of.x.dtype, device=of.x.device)
    kernel = torch.exp(-0.5 * (steps / sigma).square())
    kernel = kernel / kernel.sum()
    planes = F.pad(of.x.flatten(0, 1)[:, None], (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(planes, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1)).view_as(of.x)


def contrast(of: Features, amount: float, generator: torch.Generator) -> Tensor:
    """Draw each image's channels towards their mean, by a share of `amount`."""
    return torch.lerp(of.x, of.x.mean((-2, -1), keepdim=True), amount)


def translation(of: Features, amount: float, generator: torch.Generator) -> Tensor:
    """Move each image by `amount` times its sides into a direction of its own; its border fills what comes free."""
    count = len(of.x)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    moves = torch.eye(2, 3).repeat(count, 1, 1)
    # A side is 2 long in the coordinates of the grid.
    moves[:, :, 2] = 2 * amount * torch.stack([angle.cos(), angle.sin()], dim=1)
    grid = F.affine_grid(moves.to(of.x), list(of.x.shape), align_corners=False)
    return F.grid_sample(of.x, grid, mode="bilinear", padding_mode="border", align_corners=False)


STRONGEST: Mapping[Corruption, float] = {noise: 1.5, salt_and_pepper: 0.3, blur: 0.1, contrast: 0.9, translation: 0.125}
"""The amount of the highest severity; the others are equal steps from 0 to it."""
OF_IMAGES = (blur, contrast, translation)
"""Those that only images have."""


def corrupted(examples: Examples, is_image: bool, settings: Settings) -> Iterable[tuple[str, Examples]]:
    """Return a corruption's name and corrupted examples, severity by severity from 1, corruption by corruption.

    The same examples are corrupted in the same way whatever the network: what is random is seeded by the corruption,
    and one draw serves all its severities. They are made once for a data set and kept, as far as `KEPT_BYTES` allow.
    There are none where the features are no real numbers. Sequences, which come with their lengths, are corrupted in
    their real steps only.
    """
    x = examples.inputs[0]
    if not x.is_floating_point():
        return ()
    size = x.nbytes * settings.severities * len(_kinds(examples, is_image))
    return (_kept if size <= KEPT_BYTES else _made)(examples, is_image, settings)


@lru_cache(maxsize=1)
def _kept(examples: Examples, is_image: bool, settings: Settings) -> tuple[tuple[str, Examples], ...]:
    # Tensors are hashed by identity: the examples of a run are one object, whatever network looks at them.
    return tuple(_made(examples, is_image, settings))


def _made(examples: Examples, is_image: bool, settings: Settings) -> Iterator[tuple[str, Examples]]:
    features = features_of(examples)
    for kind in _kinds(examples, is_image):
        for severity in range(1, settings.severities + 1):
            amount = STRONGEST[kind] * severity / settings.severities
            yield kind.__name__, corrupt(examples, features, kind, amount, settings.seed)


def corrupt(examples: Examples, features: Features, kind: Corruption, amount: float, seed: int = 0) -> Examples:
    """Return examples corrupted by an amount; `features` are theirs."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "corruption", kind.__name__))
    x, real = kind(features, amount, generator), _real_steps(examples)
    if real is not None:
        x = torch.where(real, x, features.x)
    return Examples((x, *examples.inputs[1:]), examples.targets)


def features_of(examples: Examples) -> Features:
    """Return the features of examples and their spread, of sequences over their real steps."""
    x, real = examples.inputs[0], _real_steps(examples)
    if real is not None:
        seen = x[real[..., 0]]
        return Features(x, seen.std(0), seen.amin(0), seen.amax(0))
    others = [dim for dim in range(x.dim()) if dim != 1]
    return Features(x, x.std(others, keepdim=True), x.amin(others, keepdim=True), x.amax(others, keepdim=True))


def _kinds(examples: Examples, is_image: bool) -> list[Corruption]:
    planes = is_image and examples.inputs[0].dim() == 4
    return [kind for kind in STRONGEST if planes or kind not in OF_IMAGES]


def _real_steps(examples: Examples) -> Tensor | None:
    """Return which steps of padded sequences are real [examples, steps, 1]; None where there are no lengths."""
    if len(examples.inputs) < 2 or examples.inputs[0].dim() != 3:
        return None
    lengths = examples.inputs[1]
    if lengths.shape != examples.targets.shape or lengths.is_floating_point():
        return None
    return (torch.arange(examples.inputs[0].shape[1], device=lengths.device) < lengths[:, None])[..., None]


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator).to(x)
