"""The tables of winners that were retrained on parts of the training set."""

from __future__ import annotations

import math

from dropsearch.core.records import Comparison, Summary, TrainSize
from dropsearch.report import findings
from dropsearch.report.bands import mean_interval
from dropsearch.report.tables.evidence import with_interval
from dropsearch.report.tables.table import Table
from dropsearch.report.text.numbers import EMPTY, loss, percent, probability
from dropsearch.report.text.score_scale import signed

MEASURES = {"gap_best": "gap (nats)", "val_loss": "validation loss (nats)"}


def sizes_table(summary: Summary) -> Table:
    """One row an arm and size: gap, loss and accuracy on the validation set."""
    sizes = summary.evidence.train_sizes if summary.evidence else ()
    columns = ("examples", "arm", "gap at the best epoch (95 % interval)", "val loss", "val accuracy")
    rows = tuple(_row(size, arm) for size in sizes for arm in size.gaps)
    return Table("Winners retrained on parts of the training set: means over seeds", columns, rows, left=("arm",))


def size_contrasts_table(summary: Summary) -> Table:
    """One row a contrast at each size: what dropout does to gap and loss, paired by seed."""
    sizes = summary.evidence.train_sizes if summary.evidence else ()
    columns = ("examples", "contrast", "measure", "difference", "95 % interval", "p Holm", "seeds", "shown")
    rows = tuple(_contrast(size.size, contrast) for size in sizes for contrast in size.contrasts)
    return Table("Paired differences by size of the training set", columns, rows, left=("contrast", "measure"))


def _row(size: TrainSize, arm: str) -> tuple[str, ...]:
    return (
        f"{size.size:,}",
        arm,
        with_interval(mean_interval(size.gaps[arm]), signed=True),
        loss(mean_interval(size.val_losses[arm]).mean),
        percent(mean_interval(size.val_accs[arm]).mean),
    )


def _contrast(size: int, found: Comparison) -> tuple[str, ...]:
    low, high = signed(found.difference.low), signed(found.difference.high)
    return (
        f"{size:,}",
        f"{found.a} - {found.b}",
        MEASURES[found.metric],
        signed(found.difference.mean),
        f"{low} to {high}" if math.isfinite(found.difference.low) else EMPTY,
        probability(found.p_holm),
        str(len(found.differences)),
        "yes" if findings.shown(found) else "no",
    )
