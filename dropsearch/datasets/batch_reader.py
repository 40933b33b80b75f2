"""Reading of the batches of several trials from one indexed data set with shared worker processes."""

from __future__ import annotations

import itertools
import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from dropsearch._compat.data_loaders import end_workers, iterator_of
from dropsearch.datasets.keyed_random import BatchKey, generators_in, reseed

_ENDS = ("exited unexpectedly", "timed out after")
"""Parts of torch's messages about worker failures, after which no more batches can be read."""


class Stream:
    """The batches of one trial in one epoch, at most `most`, as indices that a (batch) sampler gives."""

    def __init__(self, seed: int, purpose: str, epoch: int, order: Any, most: int | None = None) -> None:
        self.key, self.most = BatchKey(seed, purpose, epoch, 0), most
        self._order, self._generators = order, generators_in(order)
        self._indices: Iterator[Any] | None = None

    def next(self, number: int) -> Any:
        """Return the indices of batch `number`; raise StopIteration after the last."""
        if number == self.most:
            raise StopIteration
        reseed(self.key._replace(batch=number), "order", self._generators)
        if self._indices is None:
            self._indices = iter(self._order)
        return next(self._indices)


class _Wanted(NamedTuple):
    """A request for a batch, sent to a worker process."""

    key: BatchKey
    indices: Any


class _Orders:
    """Iterates over the batches to read: the first of each stream, then the second of each, and so on."""

    def __init__(self) -> None:
        self.streams: Sequence[Stream] = ()
        self.taken: deque[tuple[int, int, Exception | None]] = deque()
        """Stream and number of each requested batch, and the error if the stream's sampler raised."""
        self.ended: set[int] = set()

    def __iter__(self) -> Iterator[_Wanted]:
        for number in itertools.count():
            live = [index for index in range(len(self.streams)) if index not in self.ended]
            if not live:
                return
            for index in live:
                stream = self.streams[index]
                try:
                    indices = stream.next(number)
                except StopIteration:
                    self.ended.add(index)
                except Exception as error:
                    self.ended.add(index)
                    self.taken.append((index, number, error))
                else:
                    self.taken.append((index, number, None))
                    yield _Wanted(stream.key._replace(batch=number), indices)


class _Examples:
    """Wraps a data set so that examples are read under the seed of their batch."""

    def __init__(self, dataset: Any, collate: Any) -> None:
        vars(self).update(_keyed_dataset=dataset, _keyed_collate=collate, _keyed_process=0, _keyed_generators=[])

    def _reseed(self, key: BatchKey) -> None:
        held = vars(self)
        if held["_keyed_process"] != os.getpid():  # a worker process may create its own generators
            held["_keyed_process"] = os.getpid()
            held["_keyed_generators"] = generators_in(held["_keyed_dataset"], held["_keyed_collate"])
        reseed(key, "examples", held["_keyed_generators"])

    def __getitems__(self, wanted: _Wanted) -> Any:
        self._reseed(wanted.key)
        dataset: Any = vars(self)["_keyed_dataset"]
        several = getattr(dataset, "__getitems__", None)
        return several(wanted.indices) if several else [dataset[index] for index in wanted.indices]

    def __getitem__(self, wanted: Any) -> Any:
        dataset: Any = vars(self)["_keyed_dataset"]
        if not isinstance(wanted, _Wanted):
            return dataset[wanted]
        self._reseed(wanted.key)
        return dataset[wanted.indices]

    def __len__(self) -> int:
        return len(vars(self)["_keyed_dataset"])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_keyed_dataset" not in vars(self):
            raise AttributeError(name)
        return getattr(vars(self)["_keyed_dataset"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["_keyed_dataset"], name, value)


def options_of(loader: DataLoader[Any], workers: int) -> dict[str, Any]:
    """Return how a loader reads and collates examples, with a number of worker processes, as arguments of another."""
    options: dict[str, Any] = {
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "worker_init_fn": loader.worker_init_fn,
        "num_workers": workers,
    }
    if workers:
        names = ("timeout", "multiprocessing_context", "prefetch_factor", "persistent_workers")
        options |= {name: getattr(loader, name) for name in names}
    return options


class BatchReader:
    """Reads batches of an indexed data set for any number of trials.

    Generators are seeded with the key of each batch before its examples are read and collated. The batch is therefore
    the same in any process, unless the data set keeps state outside of generators. The number of worker processes is
    that of the loader, for any number of trials; its samplers are not used.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._orders = _Orders()
        are_batches = loader.batch_sampler is not None
        order = {"batch_sampler": self._orders} if are_batches else {"batch_size": None, "sampler": self._orders}
        # By default an iterator draws from the global generator.
        options = {**options_of(loader, loader.num_workers), **order, "generator": torch.Generator()}
        with warnings.catch_warnings():
            # The user's loader has already warned.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            self.loader = DataLoader(_Examples(loader.dataset, loader.collate_fn), **options)  # type: ignore[arg-type]

    def close(self) -> None:
        """End the worker processes."""
        end_workers(self.loader)

    def epoch(self, streams: Sequence[Stream]) -> Iterator[tuple[int, int, Any]]:
        """Yield the index of a stream, the number of its batch and the batch, round by round.

        If the sampler or the data set raises an error, the error replaces the batch and its stream ends. The states of
        generators are not restored.
        """
        orders = self._orders
        orders.streams, orders.ended = streams, set()
        orders.taken.clear()
        failed: set[int] = set()
        batches = iterator_of(self.loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                batch = None
            except Exception as error:
                if not orders.taken or any(text in str(error) for text in _ENDS):
                    raise
                batch = error
            while orders.taken:
                index, number, error = orders.taken.popleft()
                if index in failed:
                    if error is None:
                        break
                    continue
                found = batch if error is None else error
                if isinstance(found, Exception):
                    failed.add(index)
                    orders.ended.add(index)
                yield index, number, found
                if error is None:
                    break
            else:
                return
