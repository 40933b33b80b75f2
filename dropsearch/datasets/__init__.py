"""What data is: the sets, where they come from, how they are split, and loaders that slice tensors."""
