"""Adapts a user's LightningDataModule to the data source that engines need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialSpec
from dropsearch.core.user_errors import place_of_class, place_of_method
from dropsearch.datasets.given_loaders import GivenLoaders, prepared
from dropsearch.datasets.keyed_loader import can_be_keyed, is_indexed, is_random, is_repeatable, keyed, keying_of
from dropsearch.datasets.shared_examples import share_of_equal_examples
from dropsearch.datasets.user_loaders import Batches, Part, each_loader, examples, length, number_of_batches, reordered
from dropsearch.datasets.user_parts import BatchHooks, UserParts
from dropsearch.datasets.user_rows import Examples, UserDataLockstep, UserDataRows, rows_of

PART_SHARE = 8
"""The train loss with dropout off is measured on one of so many parts of the training set."""
PART_COST = 20
"""In the search, one batch of that part is evaluated for at least so many training batches."""
MOST_PROCESSES = 16
"""Maximum total number of worker processes over the loaders of all rows."""


class UserData:
    """The data of a user's data module, in an order that is a function of a trial's seed.

    If the training set is indexed and its examples are tensors that fit in memory, `rows` holds them for vectorized
    training. Vectorized and sequential training then use the same batches in the same order, and incomplete batches are
    dropped. Any other loader is seeded for each batch (see `keyed`), and vectorized training reads one loader per row.
    `setup` runs under the seed, so that a continued study has the same random split.

    Raises:
        InputError: The data module fails, or has no training or validation batches.
    """

    def __init__(self, module: Any, name: str, seed: int = 0, *, is_double: bool = False) -> None:
        self.module, self.name = module, name
        self._device = torch.device("cpu")
        with seeded(seed):  # reading may draw random numbers and must not change the global state
            parts = self._parts = UserParts(module, name, seed)
            self._train, self._val, self._test = parts.train, parts.val, parts.test
            self.overlaps: tuple[str, ...] = tuple(parts.overlaps())
            """Sentences about examples of validation or test set that are also training examples."""
            self.rows, self.why_lockstep = rows_of(self._train)
            """The training set in memory, or None, and the reason why each row reads its own loader."""
            self.hooks = BatchHooks(module, is_double=is_double)
            self._unrepeatable = [
                each for each in each_loader(self._train) if can_be_keyed(each) and not is_repeatable(each)
            ]
            self.obstacles = tuple(self._obstacles())
            """All reasons why stacked rows cannot use these data."""
            self.incompatibility = next(iter(self.obstacles), "")
            """The first of them; empty if they can."""
            if self.incompatibility or self.hooks.names:
                self.rows = None
                self.why_lockstep = next(self._hook_reasons(), self.why_lockstep)
            self._part_size = min(length(self._val), examples(self._train) // PART_SHARE or length(self._val))
            self.part_every = self._part_every()
            """In how many epochs a trial of a search measures that part once; 1 if the epoch's length is unknown."""
            self.validates_by_row = is_random(self._val)
            """Whether reading the validation set draws random numbers, so that its batches differ between trials."""
        with seeded(seed):
            self.digest = parts.digest(None if self.rows is None else self.rows.tensors)
            """sha256 of the data, which a continued study must match."""
            equal = 0.0 if self.rows is None else share_of_equal_examples(self.rows.tensors, each_loader(self._val)[0])
            self.share_in_training = max(parts.share_in_training(), equal)
            """Share of the validation examples that are training examples, as far as known."""

    def _obstacles(self) -> Iterator[str]:
        place = partial(place_of_method, self.module)
        if self.hooks.names and not self._can_call_hooks():
            yield from self._hook_reasons()
        if (count := len(each_loader(self._val))) > 1:
            yield f"there are {count} validation loaders{place('val_dataloader')}"
        for once in (each for each in each_loader(self._train) if not can_be_keyed(each)):
            what = f"a {type(once).__name__}, which cannot be copied for each trial"
            yield f"the training batches come from {what}{place_of_class(type(once)) or place('train_dataloader')}"
        for other in self._unrepeatable:
            kind = type(getattr(other, "dataset", other) if isinstance(other, DataLoader) else other)
            what = (
                f"a {kind.__name__}, which does not give the same batches again, so it cannot be copied for each trial"
            )
            yield f"the training batches come from {what}{place_of_class(kind) or place('train_dataloader')}"

    def _hook_reasons(self) -> Iterator[str]:
        yield from (
            f"the data module overrides {each}{place_of_method(self.module, each)}" for each in self.hooks.names
        )

    def _can_call_hooks(self) -> bool:
        """Return whether the batch transfer hooks can be called on the batches of each row."""
        if not all(each_loader(each) == [each] and can_be_keyed(each) for each in (self._train, self._val)):
            return False
        return all(self.hooks.can_be_called(next(iter(Part(each, 1)), None)) for each in (self._train, self._val))

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the data, one line each."""
        dropped = f"training examples of an incomplete batch, which are dropped in each epoch: {self.left_out}"
        other = (
            "the training loader does not give the same batches again, so a trial's batches do not follow from its "
            "seed, and another run gives other results"
        )
        return (*([dropped] if self.left_out else []), *([other] if self._unrepeatable else []))

    def to(self, device: torch.device | str) -> UserData:
        """Move the tensors of `rows` to a device; the user's loaders are unchanged."""
        self._device = torch.device(device)
        if self.rows is not None:
            self.rows = Examples(tuple(tensor.to(device) for tensor in self.rows.tensors), self.rows.form)
        return self

    def in_rows(self) -> UserDataRows | UserDataLockstep | None:
        """Return the same data for the rows of vectorized training, or None (see `incompatibility`)."""
        if self.rows is not None:
            return UserDataRows(self, self.rows)
        return None if self.incompatibility else UserDataLockstep(self, self._device)

    @property
    def batch_size(self) -> int:
        """Number of examples per training batch; 0 if unknown."""
        size = int(getattr(self._train, "batch_size", None) or 0)
        return min(size, len(self.rows.tensors[0])) if self.rows is not None else size

    @property
    def left_out(self) -> int:
        """Number of examples per epoch that are dropped with the incomplete batch."""
        return len(self.rows.tensors[0]) % self.batch_size if self.rows is not None else 0

    @property
    def changes_batches(self) -> bool:
        """Whether the data module has batch transfer hooks, so that the module's batch differs from the loader's."""
        return bool(self.hooks.names)

    @property
    def uses_workers(self) -> bool:
        """Whether a loader has worker processes, which a daemonic training process cannot start."""
        return any(getattr(each, "num_workers", 0) for each in each_loader([self._train, self._val, self._test]))

    redraws_split = False

    @property
    def parts(self) -> tuple[Any, ...]:
        """The data module and its loaders."""
        return (self.module, *each_loader([self._train, self._val, self._test]))

    def for_trial(self, spec: TrialSpec) -> UserData:
        """Return the same data for all trials."""
        return self

    def train_loader(self, seed: int, epochs: Counter[str] | None = None) -> Any:
        """Return the user's training batches, in an order that is a function of `seed` and epoch."""
        is_kept = self.rows is not None or is_indexed(self._train)
        return self._ordered(self._train if is_kept else self._parts.call("train_dataloader"), seed, epochs)

    def _ordered(self, loader: Any, seed: int, epochs: Counter[str] | None) -> Any:
        """Return a loader of training batches in the order of a trial."""
        if self.rows is not None:
            return reordered(loader, seed, whole_batches=True)
        ordered = reordered(loader, seed, whole_batches=False) if type(loader) is DataLoader else loader
        return keyed(ordered, seed, "train", epochs)

    def val_loader(self, seed: int) -> Any:
        """Return the validation batches of a trial; random ones are a function of `seed`."""
        return keyed(self._val, seed, "val") if self.validates_by_row else self._val

    def after_hooks(self, loader: Any) -> Any:
        """Return a loader whose batches the batch transfer hooks of the data module have changed."""
        if not self.hooks.names:
            return loader
        if (keying := keying_of(loader)) is None:
            return Batches(lambda: map(self.hooks, loader))
        keying.prepare = self.hooks
        return loader

    def for_trainer(self, seed: int) -> dict[str, Any]:
        """Return the data arguments of `Trainer.fit`."""
        epochs = Counter[str]()
        train, val = self.train_loader(seed, epochs), self.val_loader(seed)
        if isinstance(self.module, GivenLoaders):
            return {"train_dataloaders": train, "val_dataloaders": val}
        again = partial(self._ordered, seed=seed, epochs=epochs)
        return {"datamodule": prepared(self.module, again, train_dataloader=train, val_dataloader=val)}

    def for_test(self, step: str, loader: Any = None) -> dict[str, Any]:
        """Return the data arguments to test or validate (`step` is test or val) with a loader, else the test set."""
        loader = self._test if loader is None else loader
        if isinstance(self.module, GivenLoaders):
            return {"dataloaders": loader}
        return {"datamodule": prepared(self.module, **{f"{step}_dataloader": loader})}

    def train_part_loader(self) -> Any:
        """Return a fixed part of the training set, in order: an eighth of it, at most the size of the validation set.

        It consists of whole batches, at least one; measuring it takes about a twentieth of an epoch's steps. With
        several validation loaders it is a list of the same length.
        """
        part, count = self._part(), len(each_loader(self._val))
        return part if count == 1 else [part] * count

    def _part_every(self) -> int:
        batches = number_of_batches(self._train)
        taken = None if batches is None else max(batches - bool(self.left_out), 1)
        return 1 if taken is None else -(-PART_COST * self._part().batches // taken)

    def _part(self) -> Part:
        given = each_loader(self._train)
        return Part(given[0] if len(given) == 1 else self._train, self._part_size, is_random=self.rows is None)

    def val_dataloader(self) -> Any:
        """Return the user's validation batches."""
        return self._val

    def test_dataloader(self) -> Any:
        """Return the user's test batches, or None."""
        return self._test

    @property
    def most_rows(self) -> int | None:
        """Maximum number of trials that may read at the same time; None for any number.

        An indexed data set shares its worker processes between trials; any other loader has its own per trial.
        """
        given = each_loader(self._train)
        workers = sum(getattr(each, "num_workers", 0) for each in given)
        if self.rows is not None or not workers or (len(given) == 1 and is_indexed(given[0])):
            return None
        return max(MOST_PROCESSES // workers, 1)

    @property
    def reading(self) -> str:
        """Description of the source of the rows' batches, with the reason."""
        if self.rows is not None:
            return "from examples in memory"
        if self.incompatibility:
            return f"from one loader after the other, because {self.incompatibility}"
        workers = sum(getattr(each, "num_workers", 0) for each in each_loader(self._train))
        whose = "all" if self.most_rows is None else "each"
        many = f", with {workers} worker processes for {whose}" if workers else ""
        return f"from a loader for each trial, read in lockstep{many}, because {self.why_lockstep}"

    @property
    def has_test(self) -> bool:
        """Whether there is a test set."""
        return self._test is not None

    @property
    def description(self) -> str:
        """Description of the data."""
        known = [f"{size:,} {part}" for part, size in self.sizes.items() if size]
        if self.rows is not None:
            where = ", the training set in memory"
        else:
            where = "" if self.incompatibility else f"; vectorized trials take batches {self.reading}"
        return f"{' and '.join(known) or 'unknown numbers of'} examples from {self.source}{where}"

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of train, val and test; 0 if unknown."""
        return self._parts.sizes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an example's first tensor; empty if unknown."""
        return tuple(self.rows.tensors[0].shape[1:]) if self.rows is not None else ()

    @property
    def classes(self) -> None:
        """None: the meaning of the targets is unknown."""

    @property
    def layout(self) -> None:
        """None: the meaning of the inputs is unknown."""

    @property
    def source(self) -> str:
        """Qualified name of the data module's class."""
        return f"{type(self.module).__module__}.{type(self.module).__qualname__}"
