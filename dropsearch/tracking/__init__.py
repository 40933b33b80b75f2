"""Tracking: what happened, as it happens, where people look for it."""

from dropsearch.tracking.registry import TRACKERS, check_extras, make_tracker, tracker_names
from dropsearch.tracking.tracker import NullTracker, Tracker

__all__ = ["TRACKERS", "NullTracker", "Tracker", "check_extras", "make_tracker", "tracker_names"]
