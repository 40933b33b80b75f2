"""What works on any module: dry run, inventory, check, insertion, rates for good, Monte Carlo dropout."""
