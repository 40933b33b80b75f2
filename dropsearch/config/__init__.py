"""The configuration: types, constraints and error messages."""
