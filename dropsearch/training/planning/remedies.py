"""What would make trials of a module train vectorized, for each reason against it."""

from __future__ import annotations

import re

REMEDIES = (
    (r"manual optimization", "automatic optimization with one optimizer"),
    (
        r"several optimizers|\d+ optimizers|not a single optimizer",
        "one optimizer; its parameter groups may have rates of their own",
    ),
    (r"evaluates the loss several times", "an optimizer that evaluates the loss once a step"),
    (r"before it evaluates the loss", "an optimizer that evaluates the loss before it changes weights"),
    (r"watches a metric at each step", "a schedule that watches its metric at the end of an epoch"),
    (r"computes the metric", "compute() in a hook at the end of the epoch"),
    (r"draws by (poisson|binomial)", "a distribution whose count of random numbers is known, such as Normal or Gamma"),
    (r"that no trial's seed gives|in a way that no trial's seed", "torch.rand, torch.randn or the like"),
    (r"fills a tensor that all trials share", "a tensor that the step creates, or a buffer of the module"),
    (r"draws from `random` or `numpy.random`", "torch.rand and the like, or such draws from the first step on"),
    (r"draws .* than the first step", "the same draws in each step, whatever values are drawn"),
    (r"^\w+ draws random numbers", "random numbers drawn in training_step, or in a hook of the epoch"),
    (r"^\w+ drops activations", "self.eval() for what the hook computes, or dropout in training_step"),
    (
        r"a step .*, which differs between trials|reads self\..*, as the first steps did not",
        "param_groups read in the step and set in a hook, such as on_train_batch_start",
    ),
    (r"(reads|sets) (self\.)?trainer\.", "a value that the module keeps itself"),
    (r"has max_norm", "an embedding without max_norm, or weights that a hook scales"),
    (r"is a sparse tensor", "a dense tensor, or its indices and values"),
    (r"freezes or unfreezes", "the same parameters trained from the first epoch to the last"),
    (r"changes the mode", "modes that are set in the constructor"),
    (r"ends an epoch early", "trainer.max_epochs, or a pruner of the search"),
    (r"differs between trials, as it did not in", "a buffer of the module"),
    (
        r"changes .*, which (all trials share|no row has for itself)",
        "an attribute that the constructor creates for each module",
    ),
    (r"which holds itself", "a container that does not hold itself"),
    (r"a step reads .*, an iterator", "a number that the step counts up, or the iterator read in a hook of the epoch"),
    (r"keeps a tensor in", "an object that the constructor creates, or a tensor as an attribute of the module"),
    (r"changes .*, which holds itself", "a container that does not hold itself"),
    (r"a step changes .* of more than [\d,]+ items", "a container of the module itself, or one that a hook empties"),
    (r"a step changes .* by drawing from it", "torch.rand and the like, or random and numpy.random themselves"),
    (r"a step reads the epoch or step", "the epoch read in each step"),
    (r"a step changes .*, as the first steps did not", "an attribute that each step sets, or a buffer of the module"),
    (r"a step changes", "a list that a step only appends to, emptied in a hook"),
    (r"branches on the value|converts a tensor to a number", "torch.where, or a value that is only logged"),
    (r"shape depends on values", "torch.where, or a weight of 0 or 1 for each element"),
    (r"differs between batches and is not a tensor", "a tensor in its place"),
    (r"does not return a loss", "a loss returned by each step"),
    (r"does not log", "self.log in validation_step"),
    (r"custom reduction", "reduce_fx mean, sum, min or max"),
    (r"logs .*tensor of shape", "a single number"),
    (r"names none by monitor", "monitor in the dict that configure_optimizers returns"),
    (r"a schedule monitors", "a metric that validation_step logs"),
    (r"differ in class or parameter groups", "one class of optimizer and the same groups in every trial"),
    (r"the module overrides", "a hook of Lightning's loop, such as on_before_optimizer_step or on_train_batch_end"),
    (r"there are \d+ validation loaders", "one validation loader"),
    (r"cannot be copied for each trial", "a loader that gives its batches again in each epoch"),
    (r"yields \d+ batches, but its length is", "a loader that has as many batches as its length says"),
    (r"the data module overrides", "the work of the hook in the data set or its collate function"),
    (r"yields no batches", "a loader with batches"),
    (r"the callback", "hooks of the module that do the same, or EMAWeightAveraging for averages of weights"),
    (r"works with sequential training only|^trainer\.", "a search without that argument"),
    (r"is not supported by vectorized training", "trainer.precision 32-true, 64-true or bf16-mixed"),
    (
        r"between vectorized and sequential|in vectorized training",
        "steps that depend on the batch, the module's parameters and buffers, and random numbers of torch alone",
    ),
    (r"^\w+: ", "steps that raise no such error under torch.func.vmap"),
)


def remedy(reason: str) -> str:
    """Return what would make vectorized training possible, or an empty string."""
    return next((change for pattern, change in REMEDIES if re.search(pattern, reason)), "")
