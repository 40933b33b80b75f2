"""The picture of the budget: the best score that a search comes to with so many trials."""

from __future__ import annotations

from dropsearch.core.records import Budget, Summary
from dropsearch.report.bands import finite
from dropsearch.report.figures.axes import ceiling, label_outer, score_label, whole_numbers
from dropsearch.report.figures.layout import FigureLayout, figure_layout, key
from dropsearch.report.figures.palette import arm_style

SOURCES = {
    "trials": "Estimated from the trials of one search, as if they were independent.",
    "repeats": "Seen in repeated searches.",
}


def budgets(summary: Summary) -> FigureLayout | None:
    """Expected best against the number of trials, one line an arm with its band; None where it was not estimated."""
    known = summary.evidence.budgets if summary.evidence else {}
    found = {arm: known[arm] for arm in summary.arms if arm in known and known[arm].trials}
    if not found:
        return None
    sources = dict.fromkeys(SOURCES[budget.source] for budget in found.values())
    drawn = figure_layout(
        "Expected best score by number of trials",
        f"Bands: 95 %. {' '.join(sources)} The best of a search flatters: confirmed scores decide.",
        1,
        [key(arm) for arm in found],
        alt="; ".join(_said(arm, budget) for arm, budget in found.items()),
        panel_height=3.0,
    )
    panel = drawn.panels[0]
    for arm, budget in found.items():
        shape = arm_style(arm)
        marker = shape.marker if len(budget.trials) == 1 else None
        panel.plot(budget.trials, budget.expected, shape.line, color=shape.colour, linewidth=1.8, marker=marker)
        panel.fill_between(budget.trials, budget.low, budget.high, color=shape.colour, alpha=0.16, linewidth=0)
    whole_numbers(panel)
    _limit(drawn, list(found.values()))
    label_outer(drawn, "trials of a search", f"expected best {score_label(summary)}")
    return drawn


def _limit(drawn: FigureLayout, found: list[Budget]) -> None:
    """Leave out of the axis how bad the first trials may be."""
    lows = finite([value for budget in found for value in (*budget.low, *budget.expected)])
    top = ceiling([value for budget in found for value in budget.expected])
    if lows:
        room = 0.08 * (top - min(lows)) or 0.01
        drawn.panels[0].set_ylim(min(lows) - room, top + room)


def _said(arm: str, budget: Budget) -> str:
    last = f"{budget.expected[-1]:.4f} with {budget.trials[-1]}"
    return f"{arm} {budget.expected[0]:.4f} with {budget.trials[0]} trials, {last}"
