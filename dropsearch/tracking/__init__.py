"""Experiment tracking: MLflow, Weights & Biases, TensorBoard and Lightning loggers."""

from dropsearch.tracking.registry import TRACKERS, check_extras, make_tracker, tracker_names
from dropsearch.tracking.tracker import Tracker

__all__ = ["TRACKERS", "Tracker", "check_extras", "make_tracker", "tracker_names"]
