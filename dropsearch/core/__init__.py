"""Records, errors, seeds, atomic file writes and process identity. Every other package may import it."""
