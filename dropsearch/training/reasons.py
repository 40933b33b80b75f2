"""One-line descriptions of errors in trials, and remedies for reasons against vectorized training."""

from __future__ import annotations

import re
from pathlib import Path

from dropsearch.core import printable
from dropsearch.core.errors import CAUSE
from dropsearch.core.user_errors import users_line

REMEDIES = (
    (r"manual optimization", "automatic optimization with one optimizer"),
    (
        r"several optimizers|\d+ optimizers|not a single optimizer",
        "one optimizer; its parameter groups may have rates of their own",
    ),
    (
        r"overrides (optimizer_step|optimizer_zero_grad|backward|configure_gradient_clipping|lr_scheduler_step)",
        "a hook of Lightning's loop, such as on_before_optimizer_step or on_train_batch_end",
    ),
    (r"LBFGS", "an optimizer that evaluates the loss once a step"),
    (r"watches a metric at each step", "a schedule that watches its metric at the end of an epoch"),
    (r"computes the metric", "compute() in a hook at the end of the epoch"),
    (r"draws random numbers from (random|numpy)", "random numbers of torch"),
    (r"(reads|sets) (self\.)?trainer\.", "a value that the module keeps itself"),
    (r"freezes or unfreezes", "the same parameters trained from the first epoch to the last"),
    (r"otherwise than by appending", "a list that a step only appends to, emptied in a hook"),
    (r"there are \d+ validation loaders", "one validation loader"),
    (r"cannot be copied for each trial", "a loader that gives its batches again in each epoch"),
    (r"yields \d+ batches, but its length is", "a loader that has as many batches as its length says"),
    (r"the data module overrides", "the work of the hook in the data set or its collate function"),
    (r"works with sequential training only", "a search without that argument"),
)
"""Patterns of reasons against vectorized training, with a remedy."""


def remedy(reason: str) -> str:
    """Return what would make vectorized training possible, or an empty string."""
    return next((change for pattern, change in REMEDIES if re.search(pattern, reason)), "")


def root_of_exit(error: BaseException) -> BaseException:
    """Return the KeyboardInterrupt that caused Lightning's exit, or the error itself."""
    return error.__context__ if isinstance(error.__context__, KeyboardInterrupt) else error


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, shortened and without passwords."""
    return printable.one_line(" ".join(str(error).split()), CAUSE)


def place_of_method(module: object, name: str) -> str:
    """Return `` (FILE:LINE)`` of a method of a user's class, or an empty string."""
    code = getattr(getattr(type(module), name, None), "__code__", None)
    return "" if code is None else f" ({Path(code.co_filename).name}:{code.co_firstlineno})"


def place_of_error(error: BaseException) -> str:
    """Return `` (FILE:LINE)`` of the innermost user code of an error, or an empty string."""
    found = users_line(error)
    return "" if found is None else f" ({found[0]})"
