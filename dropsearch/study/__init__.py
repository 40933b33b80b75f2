"""Optuna studies: the search space, the store, what is trained next, and what is retrained."""
