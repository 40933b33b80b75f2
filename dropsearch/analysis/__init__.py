"""Effects of dropout: measures on the winners, claims, response curves and budgets."""
