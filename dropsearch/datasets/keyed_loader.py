"""Loaders whose batches are a function of the trial's seed, the epoch and the batch number."""

from __future__ import annotations

import copy
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

from dropsearch._compat.data_loaders import lend_workers, mode_of, reads_as_torch_does, without_iterator
from dropsearch.datasets.batch_reader import BatchReader, Stream
from dropsearch.datasets.data_digest import digest
from dropsearch.datasets.keyed_random import BatchKey, GeneratorsKept, generators_in, reseed


def keyed(loader: Any, seed: int, purpose: str, epochs: Counter[str] | None = None) -> Any:
    """Return a copy of one or several loaders, in any container, that seeds all generators for each batch.

    Other users of random numbers then do not change its batches, and generators in this process are restored after each
    batch. The batches of an indexed data set do not depend on the number of worker processes either, if an example
    depends only on its index and on generators that `generators_in` finds when a process reads its first batch. The
    copy keeps the class, the data set and the options of the loader. `purpose` says what the batches are for, such as
    ``train``; loaders that share the numbers of epochs begun, by purpose, count them together.
    """
    epochs = Counter() if epochs is None else epochs
    if isinstance(loader, CombinedLoader):
        return CombinedLoader(keyed(loader.iterables, seed, purpose, epochs), mode_of(loader))
    if isinstance(loader, Mapping):
        return {name: keyed(each, seed, f"{purpose}/{name}", epochs) for name, each in loader.items()}
    if isinstance(loader, list | tuple):
        return [keyed(each, seed, f"{purpose}/{index}", epochs) for index, each in enumerate(loader)]
    try:
        twin = _copy(loader)
    except Exception:  # for example a generator, which cannot be copied
        return loader
    kind = type(twin)
    keying = Keying(twin, seed, purpose, epochs)
    try:
        twin.__class__ = _keyed_class(kind)
        vars(twin)["_keying"] = keying
    except TypeError:  # its layout is fixed, for example by __slots__
        return _Keyed(twin, keying)
    return twin


def keying_of(loader: Any) -> Keying | None:
    """Return the `Keying` of a loader returned by `keyed`; None for several loaders and for uncopied ones."""
    return getattr(loader, "__dict__", {}).get("_keying")


class Keying:
    """The seeding of one loader; create it before the class of the loader is changed.

    It has no reference to the loader, so that worker processes end as soon as the loader is released.
    """

    def __init__(self, loader: Any, seed: int, purpose: str, epochs: Counter[str]) -> None:
        self.seed, self.purpose, self._epochs = seed, purpose, epochs
        self.is_indexed = is_indexed(loader)
        """Whether the loader reads an indexed data set like torch's DataLoader, so that any process can read it."""
        self._own_iter = getattr(type(loader), "__iter__", _by_index)
        self._reader: BatchReader | None = None
        self.most: int | None = None
        self.prepare: Callable[[Any], Any] = _unchanged

    def note_iterators(self, opened: list[Any]) -> None:
        """Append each iterator of a loader that is not indexed to `opened` from now on."""
        own = self._own_iter

        def noted(loader: Any) -> Any:
            opened.append(own(loader))
            return opened[-1]

        self._own_iter = noted

    def _begin(self, loader: Any) -> int:
        """Begin an epoch and call `set_epoch` of the samplers, as a Trainer does; return its number."""
        epoch, batch_sampler = self._epochs[self.purpose], getattr(loader, "batch_sampler", None)
        self._epochs[self.purpose] += 1
        samplers = [getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None)]
        for sampler in {id(each): each for each in samplers}.values():
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)
        return epoch

    def stream(self, loader: Any) -> Stream:
        """Begin an epoch of an indexed data set; return its order."""
        epoch = self._begin(loader)
        order = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        return Stream(self.seed, self.purpose, epoch, order, self.most)

    def epoch(self, loader: Any) -> Iterator[Any]:
        """Begin an epoch and yield its batches. The states of generators are not restored."""
        if self.is_indexed:
            self._reader = self._reader or BatchReader(loader)
            for _, _, batch in self._reader.epoch([self.stream(loader)]):
                lend_workers(self._reader.loader, loader)
                if isinstance(batch, Exception):
                    raise batch
                yield self.prepare(batch)
            return
        epoch = self._begin(loader)
        generators = generators_in(loader)
        reseed(BatchKey(self.seed, self.purpose, epoch, 0), "order", generators)
        batches = self._own_iter(loader)
        for number in itertools.count():
            reseed(BatchKey(self.seed, self.purpose, epoch, number), "examples", generators)
            if number == self.most:
                return
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield self.prepare(batch)


def _unchanged(batch: Any) -> Any:
    return batch


def _by_index(loader: Any) -> Iterator[Any]:
    """Yield the items of an object without `__iter__` through `__getitem__`, as `iter` does."""
    for index in itertools.count():
        try:
            yield loader[index]
        except IndexError:
            return


def first_batches(loader: Any, most: int) -> Any:
    """Limit the epochs of a loader returned by `keyed` to `most` batches; return the loader."""
    (keying_of(loader) or loader).most = most
    return loader


def can_be_keyed(loader: Any) -> bool:
    """Return whether a loader can be copied for each trial; a generator cannot."""
    return keying_of(keyed(loader, 0, "train")) is not None


def is_random(loader: Any) -> bool:
    """Return whether a loader's batches are random, by reading the first ones twice.

    A generator is not read, since it yields its batches only once.
    """
    if isinstance(loader, Mapping | list | tuple | CombinedLoader):
        several = loader.iterables if isinstance(loader, CombinedLoader) else loader
        return any(map(is_random, several.values() if isinstance(several, Mapping) else several))
    if not can_be_keyed(loader):
        return False
    try:
        one, other = (list(first_batches(_without_workers(keyed(loader, seed, "check")), CHECKED)) for seed in (0, 1))
    except Exception:  # reading the loader for training reports the error
        return False
    return digest(*one) != digest(*other)


CHECKED = 2
"""Number of batches read twice to detect randomness."""


def is_repeatable(loader: Any) -> bool:
    """Return whether a loader gives the same first batches again with the same seed.

    One that goes on with a stream where it stopped does not, nor does one that seeds itself anew each time. A
    DataLoader of an indexed data set counts as repeatable, as does one with worker processes.
    """
    if isinstance(loader, DataLoader) and (is_indexed(loader) or loader.num_workers):
        return True
    opened: list[Any] = []
    try:
        one, other = (_first_of(loader, opened) for _ in range(2))
    except Exception:  # reading the loader for training reports the error
        return True
    finally:
        _close(opened)
    return digest(*one) == digest(*other)


def _first_of(loader: Any, opened: list[Any]) -> list[Any]:
    """Return the first batches of a loader; append the iterator that gave them to `opened`."""
    twin = first_batches(keyed(loader, 0, "check"), CHECKED)
    if (keying := keying_of(twin)) is not None:
        keying.note_iterators(opened)
    return list(twin)


def _close(opened: list[Any]) -> None:
    """Close the iterators of several passes if each pass has its own; a stream that goes on stays open."""
    if len({*map(id, opened)}) < len(opened):
        return
    for iterator in opened:
        with suppress(Exception):  # it may have no such method, and objects of users may raise anything
            iterator.close()


def _without_workers(loader: Any) -> Any:
    keying = keying_of(loader)
    if keying is not None and keying.is_indexed:
        vars(loader).update(num_workers=0, persistent_workers=False, prefetch_factor=None, timeout=0)
    return loader


def is_indexed(loader: Any) -> bool:
    """Return whether a loader reads an indexed data set as torch's DataLoader does."""
    return (
        reads_as_torch_does(loader)
        and not isinstance(loader.dataset, IterableDataset)
        and hasattr(type(loader.dataset), "__getitem__")
    )


def guarded(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield from an iterator; restore the states of the generators that it seeds after each step."""
    while True:
        with GeneratorsKept():
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch


def _copy(loader: Any) -> Any:
    """Return a copy of a loader with copied samplers and iterable data set, since both may hold state."""
    twin = copy.copy(loader)
    if not isinstance(loader, DataLoader):
        return twin
    held = vars(without_iterator(twin))
    if isinstance(loader.dataset, IterableDataset):
        held["dataset"] = copy.copy(loader.dataset)
        return twin
    held["sampler"] = copy.copy(loader.sampler)
    if loader.batch_sampler is not None:
        batch_sampler: Any = copy.copy(loader.batch_sampler)
        if getattr(batch_sampler, "sampler", None) is loader.sampler:
            batch_sampler.sampler = held["sampler"]
        held["batch_sampler"] = batch_sampler
    return twin


@functools.cache
def _keyed_class(kind: type[Any]) -> type[Any]:
    def __iter__(self: Any) -> Iterator[Any]:  # noqa: N807
        keying = vars(self).get("_keying")  # a Trainer may create another loader of this class
        return guarded(keying.epoch(self)) if keying is not None else getattr(kind, "__iter__", _by_index)(self)

    def __len__(self: Any) -> int:  # noqa: N807
        keying, count = vars(self).get("_keying"), kind.__len__(self)
        return count if keying is None or keying.most is None else min(count, keying.most)

    members: dict[str, Any] = {"__iter__": __iter__, "__module__": kind.__module__, "__doc__": kind.__doc__}
    if hasattr(kind, "__len__"):
        members["__len__"] = __len__
    return type(kind.__name__, (kind,), members)


class _Keyed:
    """Wraps a loader whose class cannot be changed."""

    def __init__(self, loader: Any, keying: Keying) -> None:
        self._loader, self._keying = loader, keying

    def __iter__(self) -> Iterator[Any]:
        return guarded(self._keying.epoch(self._loader))

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loader, name)
