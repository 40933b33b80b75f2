"""Engines, which train trial specifications and return results."""
