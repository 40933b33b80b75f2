"""What a run shows while it works: how far it is, how long it still takes, and what was found so far."""

from dropsearch.report.progress.forecast import Forecast, Stage
from dropsearch.report.progress.progress import Progress, View, in_all

__all__ = ["Forecast", "Progress", "Stage", "View", "in_all"]
