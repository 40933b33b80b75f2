"""What dropout is: sites, rates, masks, and the one control for all of them."""
