"""Progress of a run: what is done, the remaining time, and the best result so far."""

from dropsearch.report.progress.forecast import Forecast, Stage
from dropsearch.report.progress.progress import Progress
from dropsearch.report.progress.view import View, in_all

__all__ = ["Forecast", "Progress", "Stage", "View", "in_all"]
