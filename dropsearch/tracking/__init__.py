"""Tracking: what happened, as it happens, where people look for it."""

from dropsearch.tracking.tracker import NullTracker, Tracker, make_tracker

__all__ = ["NullTracker", "Tracker", "make_tracker"]
