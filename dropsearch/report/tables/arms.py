"""Tables of arms, rates and differences, for the terminal and the page."""

from __future__ import annotations

import math

from dropsearch.core.records import ArmOutcome, ComparisonMetric, Interval, Summary
from dropsearch.report import findings
from dropsearch.report.measured_values import finite
from dropsearch.report.numbers import (
    EMPTY,
    Scale,
    judged,
    loss,
    number,
    percent,
    rate,
    setting,
    shorten,
    with_unit,
)
from dropsearch.report.tables.evidence import claims_table, variation_tables
from dropsearch.report.tables.table import CONTRAST, Table, contrast_cells

BRIEF = 6
"""Maximum number of rows of a table in the first screen."""


def arms_table(summary: Summary) -> Table:
    """Return a table with one row per arm: final states of trials, search, confirmation and test results."""
    if not summary.comparison_metric.percent:
        return _user_arms(summary)
    monitored = "val loss" if summary.monitor.is_val_loss else shorten(summary.monitor.name, 9)
    columns = (
        "arm",
        "done/pruned/\nfailed",
        f"search\n{monitored}",
        f"confirmed\n{monitored}",
        "search\nluck",
        f"test accuracy\n{_mean(summary)}",
        "test\nloss",
        "seeds",
    )
    rows = tuple(_arm_row(name, outcome) for name, outcome in summary.arms.items())
    return Table("Arms: losses in nats, accuracy in %", columns, rows, left=("arm",))


def _mean(summary: Summary) -> str:
    """Return the title of a mean score, with its interval if an arm has one."""
    known = (judged(outcome, summary.comparison_metric) for outcome in summary.arms.values())
    return "mean (95 % over seeds)" if any(math.isfinite(each.low) for each in known) else "mean"


def _user_arms(summary: Summary) -> Table:
    """Return the table of arms of a user module, with its logged metrics."""
    monitor, comparison_metric = summary.monitor, summary.comparison_metric
    name = shorten(monitor.name, 9)
    columns = [
        "arm",
        "done/pruned/\nfailed",
        f"search\n{name}",
        f"confirmed\n{name}",
        "search\nluck",
        f"{shorten(comparison_metric.label, 19)}\n{_mean(summary)}",
    ]
    with_accuracy = any(math.isfinite(findings.test_acc(arm).mean) for arm in summary.arms.values())
    columns += ["test\naccuracy", "seeds"] if with_accuracy else ["seeds"]
    rows = tuple(_user_row(arm, outcome, comparison_metric, with_accuracy) for arm, outcome in summary.arms.items())
    title = f"Arms: {'more' if monitor.mode == 'max' else 'less'} {with_unit(monitor.name, monitor.unit)} is better"
    return Table(title, tuple(columns), rows, left=("arm",))


def _user_row(
    name: str, outcome: ArmOutcome, comparison_metric: ComparisonMetric, with_accuracy: bool
) -> tuple[str, ...]:
    interval = judged(outcome, comparison_metric)
    mean, low, high = Scale(comparison_metric).sizes(interval)
    bounds = f" ({low} to {high})" if math.isfinite(interval.low) else ""
    usable = len(finite(outcome.scores(comparison_metric)))
    return (
        *_before_the_test(name, outcome),
        mean + bounds,
        *([number(findings.test_acc(outcome).mean)] if with_accuracy else []),
        str(usable) if usable else EMPTY,
    )


def rates_table(summary: Summary) -> Table:
    """Return a table with one row per site: the typical rate and the found rate of each arm with dropout."""
    with_dropout = {name: arm for name, arm in summary.arms.items() if arm.arm.dropout in ("search", "shared")}
    found = {name: arm.rates for name, arm in with_dropout.items()}
    if not any(found.values()):  # no trial was completed
        found = {}
    kinds = {site.name: site.kind for site in summary.sites}
    names = list(dict.fromkeys([*kinds, *(name for rates in found.values() for name in rates)]))
    typical = {name: rate for arm in summary.arms.values() for name, rate in arm.typical.items()}
    fixed = {site.name for site in summary.sites if not site.controllable}
    rows = tuple(
        (
            name,
            kinds.get(name, EMPTY),
            rate(typical.get(name, math.nan)),
            *("fixed" if name in fixed else rate(rates.get(name, math.nan)) for rates in found.values()),
        )
        for name in names
        if found
    )
    columns = ("site", "kind", "typical", *(f"in {name}" for name in found))
    return Table("Dropout rates found, by site", columns, rows, left=("site", "kind"))


def params_table(summary: Summary) -> Table:
    """Return a table with one row per other searched key: the found value of each arm."""
    found = {name: arm.hyperparameters for name, arm in summary.arms.items()}
    keys = dict.fromkeys(key for values in found.values() for key in values)
    rows = tuple((key, *(setting(values.get(key, EMPTY)) for values in found.values())) for key in keys)
    return Table("What else was searched, as found", ("key", *(f"in {name}" for name in found)), rows, left=("key",))


def differences_table(summary: Summary) -> Table:
    """Return a table with one row per planned contrast: the paired difference of the comparison metric."""
    scale = Scale(summary.comparison_metric)
    rows = tuple(
        (f"{found.a} - {found.b}", *contrast_cells(found, scale.differences), rate(found.effect))
        for found in summary.contrasts
    )
    columns = ("contrast", *CONTRAST, "P(a > b)")
    unit = ": percentage points" if scale.unit == " points" else f":{scale.unit}" if scale.unit else ""
    return Table(f"Paired differences in {summary.comparison_metric.label}{unit}", columns, rows, left=("contrast",))


def tables(summary: Summary) -> list[Table]:
    """Return the nonempty tables in display order."""
    found = (
        arms_table(summary),
        rates_table(summary),
        params_table(summary),
        differences_table(summary),
        *variation_tables(summary),
    )
    return [table for table in (*map(Table.trimmed, found), claims_table(summary)) if table.rows]


def brief_tables(summary: Summary) -> list[Table]:
    """Return the tables of the first screen: arms and rates."""
    arms = arms_table(summary)
    shown = [
        index
        for index, column in enumerate(arms.columns)
        if column not in ("search\nluck", "test\nloss", "test\naccuracy")
    ]
    arms = Table(
        arms.title,
        tuple(arms.columns[index] for index in shown),
        tuple(tuple(row[index] for index in shown) for row in arms.rows),
        arms.left,
    )
    found = (arms, rates_table(summary), params_table(summary))
    return [table.first(BRIEF) for table in map(Table.trimmed, found) if table.rows]


def _before_the_test(name: str, outcome: ArmOutcome) -> tuple[str, ...]:
    """Return the cells of an arm's row from search and confirmation."""
    gap = findings.gap(outcome)
    return (
        name,
        "/".join(str(count) for count in findings.states(outcome).values()),
        loss(findings.search_loss(outcome)),
        loss(findings.confirmed_loss(outcome)),
        loss(gap, sign=True) if math.isfinite(gap) else EMPTY,
    )


def _arm_row(name: str, outcome: ArmOutcome) -> tuple[str, ...]:
    return (
        *_before_the_test(name, outcome),
        _with_interval(findings.test_acc(outcome)),
        loss(findings.test_loss(outcome).mean),
        _seeds(outcome),
    )


def _seeds(outcome: ArmOutcome) -> str:
    if outcome.test is None:
        return EMPTY
    usable, tested = len(finite(outcome.test.acc)), len(outcome.test.acc)
    return str(tested) if usable == tested else f"{usable}/{tested}"


def _with_interval(interval: Interval) -> str:
    if not math.isfinite(interval.low):
        return percent(interval.mean)
    # With few seeds the interval may exceed the range of accuracies, so it is clipped.
    low, high = max(interval.low, 0.0), min(interval.high, 1.0)
    return f"{percent(interval.mean)} ({percent(low)} to {percent(high)})"
