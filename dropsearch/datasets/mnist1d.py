"""MNIST-1D: ten short curves with random padding, dilation, scale, shift, noise and shear.

Greydanus, "Scaling down deep learning" (2020). With the published settings and seed, the result equals that of the
author's `make_dataset`, since random numbers are drawn in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Floats = NDArray[np.float64]

EXAMPLES_PER_CLASS = 500
TEST_SHARE = 0.2
LENGTH = 40
_SEED = 42
_PADDING = (36, 60)
_DILATED = 12 + _PADDING[1]
_MAX_SHIFT = 48
_SCALE = 0.4
_CORRELATED_NOISE = 0.25
_WHITE_NOISE = 0.02
_SHEAR = 0.75
_BLUR = 2
# Added to templates so that their zeros are not mistaken for padding, which is filled with correlated noise.
_NOT_PADDING = 1e-8

_CURVES = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)


@dataclass(frozen=True)
class _Draw:
    """The random numbers of one example, drawn in the order of the fields."""

    padding: int
    scale: float
    shift: int
    correlated: Floats
    white: Floats
    shear: float

    @classmethod
    def from_(cls, random: np.random.RandomState) -> _Draw:
        low, high = _PADDING
        return cls(
            padding=low + int(random.rand() * (high - low + 1)),
            scale=1 + _SCALE * (random.rand() - 0.5),
            shift=random.choice(_MAX_SHIFT),
            correlated=_CORRELATED_NOISE * random.randn(_DILATED),
            white=_WHITE_NOISE * random.randn(_DILATED),
            shear=_SHEAR * (random.rand() - 0.5),
        )


def generate() -> tuple[Floats, NDArray[np.int64], int]:
    """Return the published signals ``[5000, 40]``, labels ``[5000]`` and size of the test split at the end (1000)."""
    random = np.random.RandomState(_SEED)
    labels = np.repeat(np.arange(len(_CURVES)), EXAMPLES_PER_CLASS)
    templates = _templates()
    signals = np.stack([_signal(templates[label], _Draw.from_(random)) for label in labels])
    order = random.permutation(len(labels))
    signals, labels = signals[order], labels[order]
    return (signals - signals.mean()) / signals.std(), labels, int(len(labels) * TEST_SHARE)


def _templates() -> Floats:
    """Return the ten curves ``[10, 12]``, whitened, each starting at 0."""
    curves = _CURVES - _CURVES.mean(1, keepdims=True)
    curves /= curves.std(1, keepdims=True)
    return (curves - curves[:, :1]) / 6.0


def _signal(template: Floats, draw: _Draw) -> Floats:
    padded = np.concatenate([template + _NOT_PADDING, np.zeros(draw.padding)])
    moved = np.roll(_resample(padded, _DILATED) * draw.scale, draw.shift)
    noise = gaussian_filter1d(draw.correlated, _BLUR)
    noisy = np.where(moved != 0, moved, noise) + draw.white
    return _resample(noisy - draw.shear * np.linspace(-0.5, 0.5, _DILATED), LENGTH)


def _resample(signal: Floats, length: int) -> Floats:
    """Interpolate linearly to `length` points over the same interval."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(signal)), signal)
