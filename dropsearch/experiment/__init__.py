"""Experiments: from a validated configuration to the report, using all other packages."""
