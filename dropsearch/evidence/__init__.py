"""Statistics on results: how sure a difference between arms is, and how many seeds it takes."""

from dropsearch.evidence.budget import random_search, repeated_searches
from dropsearch.evidence.compare import compare, contrasts_of, paired, planned_contrasts
from dropsearch.evidence.effect import superiority
from dropsearch.evidence.intervals import paired_difference
from dropsearch.evidence.response import responses
from dropsearch.evidence.significance import holm, wilcoxon_exact
from dropsearch.means import mean_interval, minimum_seeds

__all__ = [
    "compare",
    "contrasts_of",
    "holm",
    "mean_interval",
    "minimum_seeds",
    "paired",
    "paired_difference",
    "planned_contrasts",
    "random_search",
    "repeated_searches",
    "responses",
    "superiority",
    "wilcoxon_exact",
]
