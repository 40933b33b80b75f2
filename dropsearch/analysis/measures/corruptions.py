"""Corruptions of examples, such as noise and blur, at increasing severities."""

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
"""Maximum size of cached corrupted examples; larger ones are computed again for each network."""


@dataclass(frozen=True)
class Features:
    """Features to corrupt, with statistics of their data set."""

    x: Tensor
    """`[examples, channels, ...]`; for sequences `[examples, steps, features]`."""
    std: Tensor
    """Standard deviation by channel (of sequences: by feature) over all examples; broadcasts to `x`."""
    low: Tensor
    high: Tensor
    """Minimum (`low`) and maximum by channel or feature."""


Corruption = Callable[[Features, float, torch.Generator], Tensor]
"""Maps features, an amount (0 changes nothing) and a generator to features of the same shape."""


def noise(of: Features, amount: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise whose standard deviation is `amount` times that of the data."""
    return of.x + amount * of.std * torch.randn(of.x.shape, generator=generator).to(of.x)


def salt_and_pepper(of: Features, amount: float, generator: torch.Generator) -> Tensor:
    """Set a share `amount` of the features to the minimum or maximum of the data, half of them each."""
    draw = torch.rand(of.x.shape, generator=generator).to(of.x.device)
    return torch.where(draw < amount / 2, of.low, torch.where(draw >= 1 - amount / 2, of.high, of.x))


def blur(of: Features, amount: float, generator: torch.Generator) -> Tensor:
    """Blur images by a Gaussian whose standard deviation is `amount` times their mean side length."""
    sigma = max(amount * math.sqrt(math.prod(of.x.shape[-2:])), 1e-6)
    radius = math.ceil(3 * sigma) if amount else 0
    steps = torch.arange(-radius, radius + 1, dtype=of.x.dtype, device=of.x.device)
    kernel = torch.exp(-0.5 * (steps / sigma).square())
    kernel = kernel / kernel.sum()
    planes = F.pad(of.x.flatten(0, 1)[:, None], (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(planes, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1)).view_as(of.x)


def contrast(of: Features, amount: float, generator: torch.Generator) -> Tensor:
    """Move each image's channels towards their mean by a share `amount`."""
    return torch.lerp(of.x, of.x.mean((-2, -1), keepdim=True), amount)


def translation(of: Features, amount: float, generator: torch.Generator) -> Tensor:
    """Shift each image by `amount` times its side lengths in a random direction; border values fill the gap."""
    count = len(of.x)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    moves = torch.eye(2, 3).repeat(count, 1, 1)
    # A side has length 2 in grid coordinates.
    moves[:, :, 2] = 2 * amount * torch.stack([angle.cos(), angle.sin()], dim=1)
    grid = F.affine_grid(moves.to(of.x), list(of.x.shape), align_corners=False)
    return F.grid_sample(of.x, grid, mode="bilinear", padding_mode="border", align_corners=False)


STRONGEST: Mapping[Corruption, float] = {noise: 1.5, salt_and_pepper: 0.3, blur: 0.1, contrast: 0.9, translation: 0.125}
"""The amount at the highest severity; lower severities are equal steps from 0."""
OF_IMAGES = (blur, contrast, translation)
"""Corruptions of images only."""


def corrupted(examples: Examples, is_image: bool, settings: Settings) -> Iterable[tuple[str, Examples]]:
    """Yield the name of a corruption and corrupted examples for each corruption and severity, from 1.

    Corrupted examples are the same for every network: random numbers are seeded by the corruption and shared by its
    severities. They are cached per data set, up to `KEPT_BYTES`. Features that are not real numbers yield nothing. Of
    sequences with lengths, only real steps are corrupted.
    """
    x = examples.inputs[0]
    if not x.is_floating_point():
        return ()
    size = x.nbytes * settings.severities * len(_kinds(examples, is_image))
    return (_kept if size <= KEPT_BYTES else _made)(examples, is_image, settings)


@lru_cache(maxsize=1)
def _kept(examples: Examples, is_image: bool, settings: Settings) -> tuple[tuple[str, Examples], ...]:
    # Tensors are hashed by identity, and all networks of a run share the same examples.
    return tuple(_made(examples, is_image, settings))


def _made(examples: Examples, is_image: bool, settings: Settings) -> Iterator[tuple[str, Examples]]:
    features = features_of(examples)
    for kind in _kinds(examples, is_image):
        for severity in range(1, settings.severities + 1):
            amount = STRONGEST[kind] * severity / settings.severities
            yield kind.__name__, corrupt(examples, features, kind, amount, settings.seed)


def corrupt(examples: Examples, features: Features, kind: Corruption, amount: float, seed: int = 0) -> Examples:
    """Return examples whose `features` are corrupted by an amount."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "corruption", kind.__name__))
    x, real = kind(features, amount, generator), _real_steps(examples)
    if real is not None:
        x = torch.where(real, x, features.x)
    return Examples((x, *examples.inputs[1:]), examples.targets)


def features_of(examples: Examples) -> Features:
    """Return the features of examples and their statistics; for sequences over real steps."""
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
    """Return a mask of real steps `[examples, steps, 1]` of padded sequences; None without lengths."""
    if len(examples.inputs) < 2 or examples.inputs[0].dim() != 3:
        return None
    lengths = examples.inputs[1]
    if lengths.shape != examples.targets.shape or lengths.is_floating_point():
        return None
    return (torch.arange(examples.inputs[0].shape[1], device=lengths.device) < lengths[:, None])[..., None]
