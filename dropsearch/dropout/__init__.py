"""Dropout sites, rates and masks, and the control of all dropout calls."""
