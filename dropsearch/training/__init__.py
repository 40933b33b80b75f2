"""Training: trial specifications in, results out."""
