"""Optuna studies: search space, store, feeds of trials, and retrainings."""
