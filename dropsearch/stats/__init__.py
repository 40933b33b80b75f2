"""Intervals, exact tests, planned contrasts and effect sizes."""
