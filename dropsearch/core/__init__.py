"""Records, errors, seeds, atomic files and process identity: what every other package may import."""
