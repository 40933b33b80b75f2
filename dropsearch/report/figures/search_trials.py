"""Figures of search trials: best score by trial, and score by rate for each site."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dropsearch.core.records import ArmOutcome, Summary, TrialResult
from dropsearch.report.figures.axes import (
    ceiling,
    label_outer,
    loss_axis,
    say,
    score_label,
    show_as_logged,
    site_panels,
    whole_numbers,
)
from dropsearch.report.figures.layout import FigureLayout, figure_layout, key
from dropsearch.report.figures.palette import QUIET, arm_style
from dropsearch.report.measured_values import finite
from dropsearch.report.numbers import loss
from dropsearch.report.text.phrases import counted

MOST_DOTS = 200
"""Maximum number of drawn trials of an arm: a third are the best ones, the others are evenly spaced by number."""
LEAST = (
    "Lines: best validation loss until then, with its last value in the legend; dots: trials trained to their end. "
    "The best of many trials flatters: confirmed scores decide."
)
DOTS = (
    "Each dot is a trial of the search trained to its end; its other rates, learning rate and weight decay differ too, "
    "so that a column of dots is a range, not noise."
)


def best_so_far(summary: Summary) -> FigureLayout:
    """Draw the best validation loss after each trial, one line per arm, with every trial as a dot."""
    losses = [_loss(t) for arm in summary.arms.values() for t in arm.trials if t.state == "COMPLETE"]
    top = ceiling(losses)
    leaders = {name: arm.best.best.objective for name, arm in summary.arms.items() if arm.best and arm.best.best}
    keys = [key(name, f"{name} {loss(summary.monitor.objective(least))}") for name, least in leaders.items()]
    drawn = figure_layout(
        _named(_lead(leaders), summary),
        _named(LEAST, summary) + _remarks(losses, top, summary),
        1,
        keys,
        panel_height=3.6,
    )
    panel = drawn.panels[0]
    for name, outcome in summary.arms.items():
        _steps(panel, name, outcome, top)
    loss_axis(panel, [min(each, top) for each in losses])
    show_as_logged(drawn.panels, summary.monitor)
    whole_numbers(panel)
    if not leaders:
        say(panel, "no trial was completed")
    label_outer(drawn, "trial number in the arm's study", score_label(summary))
    return drawn


def rates(summary: Summary) -> FigureLayout | None:
    """Draw validation loss by rate, one panel per site; return None if no rate was searched."""
    arms = {name: arm for name, arm in summary.arms.items() if arm.arm.dropout in ("search", "shared")}
    sites = [site.name for site in summary.sites if site.controllable]
    if not arms or not sites:
        return None
    complete = {name: [t for t in arm.trials if t.state == "COMPLETE" and t.best] for name, arm in arms.items()}
    losses = [_loss(trial) for trials in complete.values() for trial in trials]
    top = ceiling(losses)
    title = _named("Dropout rate against validation loss, by site", summary)
    drawn, names = site_panels(title, sites, DOTS + _remarks(losses, top, summary), _rate_keys(arms))
    for site, name, panel in zip(sites, names, drawn.panels, strict=True):
        panel.set_title(name, fontsize=9)
        _typical(panel, arms, site)
        for arm, trials in complete.items():
            _on_site(panel, arms[arm], thinned(trials), site, top)
    panel = drawn.panels[0]
    panel.set_xlim(-0.04, 0.95)
    panel.set_xticks([0, 0.3, 0.6, 0.9])
    for panel in drawn.panels:
        loss_axis(panel, [min(each, top) for each in losses])
    show_as_logged(drawn.panels, summary.monitor)
    if not losses:
        say(drawn.panels[0], "no trial was completed")
    label_outer(drawn, "dropout rate", score_label(summary))
    return drawn


def _rate_keys(arms: Iterable[str]) -> list[Line2D]:
    ring = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "markeredgecolor": "black"}
    return [
        *(key(name, dots=True) for name in arms),
        Line2D([], [], linestyle="", label="the configuration chosen", **ring),
        Line2D([], [], linestyle=":", color=QUIET, label="typical rate"),
    ]


def _steps(panel: Axes, name: str, outcome: ArmOutcome, top: float) -> None:
    drawn, least = arm_style(name), math.inf
    numbers, best = [], []
    last = max((trial.spec.number for trial in outcome.trials), default=0)
    for trial in sorted(outcome.trials, key=lambda t: t.spec.number):
        if trial.state == "COMPLETE" and _loss(trial) < least:
            least = _loss(trial)
            numbers.append(trial.spec.number)
            best.append(min(least, top))
    if numbers and last > numbers[-1]:
        numbers, best = [*numbers, last], [*best, best[-1]]
    kept = thinned([trial for trial in outcome.trials if trial.state == "COMPLETE"])
    _dots(panel, [(trial.spec.number, _loss(trial)) for trial in kept], top, outcome, alpha=0.6)
    marker = drawn.marker if len(numbers) == 1 else None
    panel.step(numbers, best, where="post", color=drawn.colour, linestyle=drawn.line, linewidth=2, marker=marker)


def thinned(trials: Sequence[TrialResult]) -> Sequence[TrialResult]:
    """Return the trials to draw in their order: all, or of more than `MOST_DOTS` the best and some others."""
    if len(trials) <= MOST_DOTS:
        return trials
    ranked = sorted(
        range(len(trials)), key=lambda index: (not math.isfinite(_loss(trials[index])), _loss(trials[index]))
    )
    best, others = ranked[: MOST_DOTS // 3], sorted(ranked[MOST_DOTS // 3 :])
    wanted = MOST_DOTS - len(best)
    kept = {*best, *(others[place * len(others) // wanted] for place in range(wanted))}
    return [trials[index] for index in sorted(kept)]


def _on_site(panel: Axes, outcome: ArmOutcome, trials: Sequence[TrialResult], site: str, top: float) -> None:
    chosen = outcome.chosen
    points = [(trial.spec.rates[site], _loss(trial)) for trial in trials if site in trial.spec.rates]
    _dots(panel, points, top, outcome, alpha=0.75)
    if chosen is not None and math.isfinite(_loss(chosen)):
        # The winner may be a trial of another arm, without dropout.
        panel.plot(
            [chosen.spec.rates.get(site, 0.0)],
            [min(_loss(chosen), top)],
            "o",
            markersize=10,
            markerfacecolor="none",
            markeredgewidth=1.5,
            markeredgecolor=arm_style(outcome.arm.name).colour,
            clip_on=False,
            zorder=4,
        )


def _dots(panel: Axes, points: Sequence[tuple[float, float]], top: float, outcome: ArmOutcome, alpha: float) -> None:
    """Draw the trials of an arm; those beyond the axis are open triangles at its edge."""
    drawn = arm_style(outcome.arm.name)
    inside = [(x, y) for x, y in points if y <= top]
    beyond = [x for x, y in points if math.isfinite(y) and y > top]
    if inside:
        look = {"markersize": 4, "color": drawn.colour, "alpha": alpha, "markeredgewidth": 0, "zorder": 3}
        panel.plot(*zip(*inside, strict=True), drawn.marker, linestyle="", **look)
    if beyond:
        edge, (y, mark) = panel.get_xaxis_transform(), (1.0, "^") if outcome.monitor.mode == "min" else (0.0, "v")
        ring = {"markerfacecolor": "none", "markeredgecolor": drawn.colour, "clip_on": False}
        panel.plot(beyond, [y] * len(beyond), mark, markersize=5, transform=edge, zorder=3, linestyle="", **ring)


def _typical(panel: Axes, arms: Mapping[str, ArmOutcome], site: str) -> None:
    known = [arm.typical[site] for arm in arms.values() if site in arm.typical]
    if known:
        panel.axvline(known[0], color=QUIET, linestyle=":", linewidth=1.2, zorder=1)


def _loss(trial: TrialResult) -> float:
    return trial.best.objective if trial.best else math.nan


def _named(text: str, summary: Summary) -> str:
    return text if summary.monitor.is_val_loss else text.replace("validation loss", score_label(summary))


def _lead(leaders: Mapping[str, float]) -> str:
    if not leaders:
        return "Best validation loss by trial: none yet"
    if len(leaders) == 1:
        return f"Best validation loss by trial of {next(iter(leaders))}"
    return f"Best validation loss by trial: {min(leaders, key=leaders.__getitem__)} leads the search"


def _remarks(losses: list[float], top: float, summary: Summary) -> str:
    """Return sentences about trials beyond the axis and trials without a dot."""
    beyond, text, monitor = [each for each in finite(losses) if each > top], "", summary.monitor
    if beyond:
        where = "upper edge" if monitor.mode == "min" else "lower edge"
        worst = f"{monitor.objective(max(beyond)):.3g} at worst"
        text = f" Open triangles at the {where}: {counted(len(beyond), 'trial')}, {worst}."
    counts = (sum(trial.state == "COMPLETE" for trial in arm.trials) for arm in summary.arms.values())
    if max(counts, default=0) > MOST_DOTS:
        text += (
            f" Of more than {MOST_DOTS} trials of an arm, {MOST_DOTS} have a dot: the best, and others at equal "
            "distances."
        )
    return text
