"""Adapters for user modules: inspection, learning rate, weight decay, seeds."""
