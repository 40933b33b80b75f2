"""Tools for any module: dry run, inventory, check, insertion, setting rates, Monte Carlo dropout."""
