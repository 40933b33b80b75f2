"""Curves of arms in one panel: the mean over seeds as a line, its interval as a band."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dropsearch.report.bands import FEWEST_FOR_INTERVAL, Band
from dropsearch.report.palette import look
from dropsearch.report.sheet import key


def line(panel: Axes, arm: str, x: Sequence[float], band: Band, scale: float = 1.0) -> NDArray[np.float64]:
    """Draw one arm's line and band, its values times `scale`; return what is drawn of the band, [2 * points]."""
    drawn = look(arm)
    marks = {"marker": drawn.marker, "markersize": 4.5} if len(x) <= 12 else {}
    panel.plot(x, scale * band.mean, drawn.line, color=drawn.colour, linewidth=1.8, **marks)
    panel.fill_between(x, scale * band.low, scale * band.high, color=drawn.colour, alpha=0.16, linewidth=0)
    return scale * np.concatenate([band.mean, band.low, band.high])


def legend(arms: Iterable[str]) -> list[Line2D]:
    """One entry an arm."""
    return [key(arm) for arm in arms]


def explained(seeds: int) -> str:
    """What lines and bands are, with so many seeds."""
    if seeds == 1:
        return "Lines: one seed."
    if seeds < FEWEST_FOR_INTERVAL:
        return f"Lines: mean over {seeds} seeds; bands: range from least to greatest."
    return f"Lines: mean over {seeds} seeds; bands: 95 % interval of the mean (Student's t)."


def ends(bands: Mapping[str, tuple[Sequence[float], Band]], write: str = "{:.3g}", scale: float = 1.0) -> str:
    """In words, for each arm, where its line begins and ends."""
    said = []
    for arm, (_, band) in bands.items():
        known = scale * band.mean[np.isfinite(band.mean)]
        said.append(f"{arm} from {write.format(known[0])} to {write.format(known[-1])}")
    return "; ".join(said)
