"""From a checked configuration to an answer: all other packages are put together here."""
