"""The search: the space, the studies, the feeds of trials. Optuna stays in here."""
