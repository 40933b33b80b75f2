"""Trials trained together, as rows of stacked tensors."""
