"""Records, errors, seeds, atomic file writes and process identity. Every other package may import it."""

VERSION = "0.1.0"
"""Version of dropsearch, as in pyproject.toml."""
