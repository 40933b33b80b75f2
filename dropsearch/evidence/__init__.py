"""Statistics on results: how sure a difference between arms is, and how many seeds it takes."""

from dropsearch.evidence.compare import compare, paired, planned_contrasts
from dropsearch.evidence.intervals import paired_difference
from dropsearch.evidence.significance import holm, minimum_seeds, wilcoxon_exact
from dropsearch.means import mean_interval

__all__ = [
    "compare",
    "holm",
    "mean_interval",
    "minimum_seeds",
    "paired",
    "paired_difference",
    "planned_contrasts",
    "wilcoxon_exact",
]
