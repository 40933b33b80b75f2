"""What a user's data module gives: its loaders, set up as by a Trainer, shared examples, and batch transfer hooks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from dropsearch._compat.lightning import is_lightning_class, with_trainer
from dropsearch.core.batches import cast
from dropsearch.core.errors import InputError, UnsupportedError
from dropsearch.core.global_state import changed, generator_states, seeded, working_folder_kept
from dropsearch.core.user_errors import USER_ERRORS, described
from dropsearch.datasets.data_digest import arguments_of, digest, held
from dropsearch.datasets.kept_state import kept_state
from dropsearch.datasets.shared_examples import common_examples
from dropsearch.datasets.user_loaders import Part, each_loader, examples, length

OVERLAP = {
    "validation": "which favors settings that overfit, such as too little dropout",
    "test": "so test results are too optimistic",
}
"""What it means that examples of a part are also training examples."""


class UserParts:
    """The training, validation and test loaders of a data module.

    Each stage is set up under the same seed, so that a random split is the same in training and test.

    Raises:
        InputError: The data module fails, or has no training or validation batches.
    """

    def __init__(self, module: Any, name: str, seed: int) -> None:
        self.module, self.name, self._seed = module, name, seed
        self.call("prepare_data")
        self._set_up("fit")
        self.train, self.val = self._loader("train_dataloader"), _bare(self._loader("val_dataloader"))
        self.test = self._test_loader()

    def call(self, method: str, *arguments: Any) -> Any:
        """Return the result of a method of the data module; raise `InputError` if it fails."""
        try:
            with working_folder_kept(), with_trainer(self.module):
                return getattr(self.module, method)(*arguments)
        except InputError:
            raise
        except USER_ERRORS as error:
            raise InputError(f"data={self.name} failed in {method}: {described(error)}") from error

    def _set_up(self, stage: str) -> None:
        with seeded(self._seed):
            self.call("setup", stage)

    def _loader(self, method: str) -> Any:
        loader = self.call(method) if defines(self.module, method) else None
        if _is_empty(loader):
            raise InputError(f"data={self.name} must return batches from {method}, got none: define {method}")
        return loader

    def _test_loader(self) -> Any:
        if not defines(self.module, "test_dataloader"):
            return None
        try:
            self._set_up("test")
            loader = _bare(self.call("test_dataloader"))
        except InputError as error:  # some data modules have one for those who give them a test set
            raise InputError(f"{error}; without a test set, give its training and validation loaders alone") from error
        if loader is not None and _is_empty(loader):
            raise InputError(
                f"data={self.name} must return batches from test_dataloader, got no batches: return batches, or leave "
                "test_dataloader out"
            )
        return loader

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of train, val and test; 0 if unknown."""
        return {part: examples(getattr(self, part)) for part in ("train", "val", "test")}

    def overlaps(self) -> Iterator[str]:
        """Yield a warning for each loader with examples that are also training examples."""
        given = (("validation", self.val), ("test", self.test))
        for part, loader in ((part, loader) for part, several in given for loader in each_loader(several)):
            shared = self._shared(loader)
            if shared:
                yield (
                    f"{shared} of {examples(loader)} {part} examples of data={self.name} are also training examples, "
                    f"{OVERLAP[part]}: split with a generator of a fixed seed"
                )

    def share_in_training(self) -> float:
        """Return the largest share of the examples of a validation loader that are known to be training examples."""
        given = [loader for loader in each_loader(self.val) if examples(loader)]
        return max((self._shared(loader) / examples(loader) for loader in given), default=0.0)

    def _shared(self, loader: Any) -> int:
        return sum(common_examples(train, loader) for train in each_loader(self.train))

    def digest(self, in_memory: Any) -> str:
        """Return the sha256 of the data: of its sizes, arguments, loaders, and examples.

        The examples are those in memory, or the first batch and what the data sets hold. No example of the test set is
        read, but what its data set holds counts.
        """
        train = next(iter(Part(self.train, 1)), ()) if in_memory is None else in_memory
        val = [next(iter(loader), ()) for loader in each_loader(self.val)]
        loaders = [loader for part in (self.train, self.val, self.test) for loader in each_loader(part)]
        sets = [loader.dataset for loader in loaders if hasattr(loader, "dataset")]
        return digest(
            self.sizes,
            arguments_of(self.module),
            [*map(_loading, loaders)],
            held(*(sets if in_memory is None else sets[len(each_loader(self.train)) :])),
            train,
            val[0] if len(val) == 1 else val,
        )


def _loading(loader: Any) -> Any:
    """Return the settings of a loader that decide which examples a batch has."""
    sampler = getattr(loader, "sampler", None)
    sizes = [getattr(loader, "batch_size", None), getattr(loader, "drop_last", None)]
    return [*sizes, type(sampler).__qualname__, getattr(sampler, "weights", None)]


def _is_empty(loader: Any) -> bool:
    return not each_loader(loader) or length(loader) == 0


def _bare(loader: Any) -> Any:
    """Return the loader of a list of one, which validates and tests alike; a training batch would be a list of one."""
    return loader[0] if isinstance(loader, list | tuple) and len(loader) == 1 else loader


def defines(module: Any, method: str) -> bool:
    """Return whether a user's class or object defines a method, rather than inheriting it from Lightning."""
    if method in vars(module):
        return True
    owner = next((c for c in type(module).__mro__ if method in c.__dict__), None)
    return owner is not None and not is_lightning_class(owner)


HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class BatchHooks:
    """The batch transfer hooks that a data module defines.

    In double precision, real tensors are converted to float64 first, as a Trainer does.
    """

    def __init__(self, module: Any, *, is_double: bool) -> None:
        self._module, self._is_double = module, is_double
        self.names = tuple(hook for hook in HOOKS if defines(module, hook))

    def __call__(self, batch: Any) -> Any:
        """Return the batch that the module gets; raise `UnsupportedError` if a hook asks for its Trainer."""
        if self._is_double:
            batch = cast(batch, torch.float64)
        with changed(self._module, trainer=_NoTrainer()):
            for name in self.names:
                batch = getattr(self._module, name)(batch, 0)
        return batch

    def can_be_called(self, batch: Any) -> bool:
        """Return whether the hooks need no Trainer, keep no state and draw no random numbers, as seen on one batch.

        They are called twice: their answers must be equal, and what the data module holds must stay the same.
        """
        if "transfer_batch_to_device" in self.names:
            return False
        with seeded(0):
            before = generator_states(), kept_state(self._module, self.names)
            try:
                one, other = (digest(self(copy.deepcopy(batch))) for _ in range(2))
            except Exception:  # a Trainer may be able to call them
                return False
            return one == other and before == (generator_states(), kept_state(self._module, self.names))


class _NoTrainer:
    """The Trainer of a data module whose hooks are called without one; any use raises an error."""

    def __getattr__(self, name: str) -> Any:
        raise UnsupportedError("a hook of the data module asks for its Trainer")

    def __bool__(self) -> bool:
        raise UnsupportedError("a hook of the data module asks for its Trainer")
