"""Small SVG charts of a running search: curves of running trials, and score by rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dropsearch.report.figures.palette import arm_style
from dropsearch.report.progress.state import RunState

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 300, 170, 52, 20, 8
CURVES_WIDTH = 400
MOST_POINTS = 200
"""Maximum number of trials of an arm in a chart; the best are shown."""
MOST_CURVES = 48
"""Maximum number of curves in a chart; the longest are shown."""
MOST_SITES = 12
HIGHEST_RATE = 0.95


class _Frame:
    """The coordinate system of a chart.

    Args:
        values: Values of the vertical axis; a tail of bad values is cut off.
    """

    def __init__(
        self, values: Sequence[float], lower_is_better: bool, left: float, right: float, width: int = WIDTH
    ) -> None:
        ranked = sorted(values)
        bound = ranked[min(int(0.9 * len(ranked)), len(ranked) - 1)]
        worst = ranked[max(int(0.1 * len(ranked)), 0)]
        self.low, self.high = (ranked[0], bound) if lower_is_better else (worst, ranked[-1])
        if self.high <= self.low:
            pad = abs(self.high) * 0.05 or 1.0
            self.low, self.high = self.low - pad, self.high + pad
        self.left, self.right, self.width = left, right, width

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return pixel coordinates; points outside are moved to the edge."""
        inside = min(max((y - self.low) / (self.high - self.low), 0.0), 1.0)
        across = LEFT + (self.width - LEFT - 6) * min((x - self.left) / (self.right - self.left), 1.0)
        return round(across, 1), round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * inside, 1)

    def svg(self, label: str, inside: str, left: str, right: str) -> str:
        """Return the chart with its marks."""
        floor = HEIGHT - BOTTOM
        return (
            f'<svg viewBox="0 0 {self.width} {HEIGHT}" role="img" aria-label="{label}">'
            f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{self.width - 6}"/>'
            f'<text x="{LEFT - 7}" y="{TOP + 8}" text-anchor="end">{self.high:.3g}</text>'
            f'<text x="{LEFT - 7}" y="{floor}" text-anchor="end">{self.low:.3g}</text>'
            f'<text x="{LEFT}" y="{HEIGHT - 5}">{left}</text>'
            f'<text x="{self.width - 6}" y="{HEIGHT - 5}" text-anchor="end">{right}</text>{inside}</svg>'
        )


def curves_chart(state: RunState) -> str:
    """Return the curves of running trials; empty if none has a finite point."""
    running = [(arm.name, curve) for arm in state.arms.values() for curve in arm.running.values() if curve]
    running = sorted(running, key=lambda each: -len(each[1]))[:MOST_CURVES]
    shown = [(arm, [state.monitor.objective(value) for value in curve]) for arm, curve in running]
    values = [value for _, curve in shown for value in curve if math.isfinite(value)]
    if not values:
        return ""
    epochs = max(max(len(curve) for _, curve in shown), state.max_epochs, 2)
    frame = _Frame(values, state.monitor.mode == "min", 1, epochs, CURVES_WIDTH)
    lines = "".join(_line(frame, arm, curve) for arm, curve in shown)
    return frame.svg("curves of running trials", lines, "epoch 1", str(epochs))


def _line(frame: _Frame, arm: str, curve: Sequence[float]) -> str:
    places = [frame.at(n + 1, value) for n, value in enumerate(curve) if math.isfinite(value)]
    if not places:
        return ""
    x, y = places[-1]
    points = " ".join(f"{a},{b}" for a, b in places)
    return (
        f'<polyline points="{points}" fill="none" {_colour(arm, "stroke")} stroke-opacity=".6" stroke-width="1.5"/>'
        f'<circle cx="{x}" cy="{y}" r="2.5" {_colour(arm, "fill")}/>'
    )


def rate_charts(state: RunState) -> dict[str, str]:
    """Return a chart for each of the first sites: best value of each search trial by rate."""
    points = [
        (arm.name, point)
        for arm in state.arms.values()
        if arm.searches_rates
        for point in sorted(arm.points, key=lambda each: each.objective)[:MOST_POINTS]
        if point.rates
    ]
    if not points:
        return {}
    objective = state.monitor.objective
    frame = _Frame([objective(point.objective) for _, point in points], state.monitor.mode == "min", 0, HIGHEST_RATE)
    sites = dict.fromkeys(site for _, point in points for site in point.rates)
    charts = {}
    for site in [*sites][:MOST_SITES]:
        places: dict[str, list[str]] = {}
        for arm, point in points:
            if site in point.rates:
                x, y = frame.at(point.rates[site], objective(point.objective))
                places.setdefault(arm, []).append(f'<circle cx="{x}" cy="{y}" r="3"/>')
        dots = "".join(
            f'<g {_colour(arm, "fill")} fill-opacity=".55">{"".join(circles)}</g>' for arm, circles in places.items()
        )
        charts[site] = frame.svg("rate against score", dots, "rate 0", f"{HIGHEST_RATE}")
    return charts


def site_count(state: RunState) -> int:
    """Return the number of sites that trials have rates of, which may be more than there are charts."""
    return len({site for arm in state.arms.values() for point in arm.points[:1] for site in point.rates})


def _colour(arm: str, what: str) -> str:
    """Return the color of an arm; black becomes light on a dark page."""
    return f'{what}="currentColor"' if arm == "none" else f'{what}="{arm_style(arm).colour}"'
