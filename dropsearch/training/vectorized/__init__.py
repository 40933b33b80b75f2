"""Vectorized training: the trials of a study as rows of stacked tensors, run by `torch.func.vmap`."""
