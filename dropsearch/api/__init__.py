"""What scripts and notebooks use: the search as a call, and its result."""
