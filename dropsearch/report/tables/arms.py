"""Tables of arms, rates and differences, for the terminal and the page."""

from __future__ import annotations

import math

from dropsearch.core.records import ArmOutcome, Summary
from dropsearch.report import findings
from dropsearch.report.measured_values import finite
from dropsearch.report.numbers import EMPTY, Scale, in_brackets, judged, loss, number, rate, setting, shorten, with_unit
from dropsearch.report.tables.evidence import claims_table, variation_tables
from dropsearch.report.tables.table import CONTRAST, Table, contrast_cells
from dropsearch.report.text.contrast_phrases import of_different_models

BRIEF = 6
"""Maximum number of rows of a table in the first screen."""


def arms_table(summary: Summary) -> Table:
    """Return a table with one row per arm: final states of trials, search, confirmation and test results."""
    monitor, metric = summary.monitor, summary.comparison_metric
    name = "val loss" if metric.percent and monitor.is_val_loss else shorten(monitor.name, 9)
    has_interval = any(math.isfinite(judged(outcome, metric).low) for outcome in summary.arms.values())
    mean = "mean (95 % over seeds)" if has_interval else "mean"
    columns = ["arm", "done/pruned/\nfailed", f"search\n{name}", f"confirmed\n{name}", "search\nluck"]
    columns += [f"{shorten(metric.label, 19)}\n{mean}", *_beside_score(summary), "seeds"]
    rows = tuple(_arm_row(summary, name, outcome) for name, outcome in summary.arms.items())
    better = f"{'more' if monitor.mode == 'max' else 'less'} {with_unit(monitor.name, monitor.unit)} is better"
    title = "losses in nats, accuracy in %" if metric.percent else better
    if metric.percent and not monitor.is_val_loss:  # such as an accuracy, which is logged as a share
        title = f"losses in nats, test accuracy in %, {name} as logged"
    return Table(f"Arms: {title}", tuple(columns), rows, left=("arm",))


def _beside_score(summary: Summary) -> list[str]:
    """Return the column beside the score: the test loss, or the test accuracy that a user module logs."""
    if summary.comparison_metric.percent:
        return ["test\nloss"]
    with_accuracy = any(math.isfinite(findings.test_acc(arm).mean) for arm in summary.arms.values())
    return ["test\naccuracy"] if with_accuracy else []


def _arm_row(summary: Summary, name: str, outcome: ArmOutcome) -> tuple[str, ...]:
    metric, gap = summary.comparison_metric, findings.gap(outcome)
    scores, interval = outcome.scores(metric), judged(outcome, metric)
    mean, low, high = Scale(metric).sizes(interval)
    usable = len(finite(scores))
    beside = {
        "test\nloss": loss(findings.test_loss(outcome).mean),
        "test\naccuracy": number(findings.test_acc(outcome).mean),
    }
    return (
        name,
        "/".join(str(count) for count in findings.states(outcome).values()),
        loss(findings.search_loss(outcome)),
        loss(findings.confirmed_loss(outcome)),
        loss(gap, sign=True) if math.isfinite(gap) else EMPTY,
        in_brackets(mean, low, high) if math.isfinite(interval.low) else mean,
        *(beside[column] for column in _beside_score(summary)),
        EMPTY if not scores else str(usable) if usable == len(scores) else f"{usable}/{len(scores)}",
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
        for found in of_different_models(summary, summary.contrasts)
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
        claims_table(summary),
    )
    return [table for table in map(Table.trimmed, found) if table.rows]


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
