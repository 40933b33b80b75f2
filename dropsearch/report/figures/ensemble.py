"""The figure of dropout as an ensemble: loss by number of averaged masks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from dropsearch.core.records import Summary
from dropsearch.report import measured_values
from dropsearch.report.figures import axes
from dropsearch.report.figures.axes import label_outer
from dropsearch.report.figures.layout import FigureLayout, figure_layout
from dropsearch.report.figures.palette import QUIET, Line

YARDSTICKS: Mapping[str, Line] = {
    "dropout off": "--",
    "dropout off, temperature-scaled": ":",
    "ensemble of the retrainings": "-.",
}
CAPTION = (
    "Loss of the averaged probabilities on held-out inputs. Dropout acts as an ensemble where the line falls below "
    "that of the same net with dropout off and its confidence scaled by one temperature."
)


def ensemble(summary: Summary) -> FigureLayout | None:
    """Draw one panel per arm with dropout: loss by number of masks, with references; return None without any."""
    found = measured_values.bands(summary, "nll_by_samples")
    if not found:
        return None
    beside = {arm: _references(summary, arm) for arm in found}
    used = [name for name in YARDSTICKS if any(name in known for known in beside.values())]
    drawn = figure_layout(
        "Averaging over dropout masks",
        f"{CAPTION} {axes.explained(measured_values.seeds(summary))}",
        len(found),
        [
            Line2D([], [], color="black", marker="o", markersize=4.5, label="dropout on, averaged"),
            *(Line2D([], [], color="black", linestyle=YARDSTICKS[name], label=name) for name in used),
        ],
        alt=". ".join(_alt(arm, found, beside[arm]) for arm in found),
        columns=min(2, len(found)),
        panel_height=2.4,
        titled=True,
    )
    for arm, panel in zip(found, drawn.panels, strict=True):
        x, band = found[arm]
        axes.line(panel, arm, x, band)
        panel.set_title(arm, fontweight="bold")
        _level(panel, beside[arm])
        _counted(panel, x)
    label_outer(drawn, "number of masks averaged", "negative log-likelihood (nats)")
    return drawn


def _references(summary: Summary, arm: str) -> dict[str, float]:
    """Return the mean losses of the references by name."""
    averaged, gain, above = (
        measured_values.means(summary, name).get(arm) for name in ("mc_nll", "mc_nll_gain", "mc_minus_scaled")
    )
    known = {}
    if averaged and gain:
        known["dropout off"] = averaged.mean + gain.mean
    if averaged and above:
        known["dropout off, temperature-scaled"] = averaged.mean - above.mean
    members = measured_values.bands(summary, "nll_by_members").get(arm)
    if members:
        known["ensemble of the retrainings"] = float(members[1].mean[-1])
    return known


def _level(panel: Axes, beside: Mapping[str, float]) -> None:
    for name, value in beside.items():
        panel.axhline(value, color=QUIET, linestyle=YARDSTICKS[name], linewidth=1.5, zorder=2)
    # Autoscaling ignores horizontal lines.
    panel.update_datalim([(1, value) for value in beside.values() if math.isfinite(value)], updatex=False)
    panel.autoscale_view()


def _counted(panel: Axes, x: tuple[float, ...]) -> None:
    """Set a logarithmic axis with ticks at the numbers of masks."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator([*x]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _alt(arm: str, found: Mapping, beside: Mapping[str, float]) -> str:
    x, _ = found[arm]
    text = f"{axes.ends({arm: found[arm]})} nats between {x[0]:g} and {x[-1]:g} masks"
    return ", ".join([text, *(f"{name} {value:.3g}" for name, value in beside.items())])
