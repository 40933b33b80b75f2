"""The Python API: `search` and its result."""
