"""What dropout did: measures on the winners, claims, response curves and budgets."""
