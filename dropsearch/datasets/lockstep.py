"""Lockstep reading of several loaders, one per trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.user_errors import place_of_class
from dropsearch.datasets.batch_reader import BatchReader
from dropsearch.datasets.keyed_loader import Keying, keying_of
from dropsearch.datasets.keyed_random import GeneratorsKept

Round = dict[int, Any]
"""The next batch of each loader by index, or the error that the loader raised. Ended loaders are absent."""


def _place(loader: Any) -> str:
    """Return the file and line of the first user class of a loader, or an empty string."""
    parts = (loader, *(getattr(loader, name, None) for name in ("batch_sampler", "sampler", "dataset")))
    return next(filter(None, (place_of_class(type(part)) for part in parts)), "")


class LockstepReader:
    """Reads epochs of several loaders at the same time.

    Loaders of the same indexed data set share worker processes, and batches that are equal for several trials are read
    once. Any other loader is read separately, with its own worker processes.
    """

    def __init__(self) -> None:
        self._reader: BatchReader | None = None
        self.read_ahead = 0
        """Number of batches that the worker processes of the last epoch may hold, of all loaders."""

    def epoch(self, loaders: Sequence[Any], lengths: Sequence[int | None]) -> Iterator[Round]:
        """Begin an epoch of loaders that `keyed` returned, of known lengths or None, and yield its steps.

        Raises `UnsupportedError` if a loader ends before its length.
        """
        keyings = [keying_of(loader) for loader in loaders]
        indexed = [each for each in keyings if each is not None and each.is_indexed]
        is_one_set = len(indexed) == len(loaders) and len({id(each.dataset) for each in loaders}) == 1
        self.read_ahead = sum(map(read_ahead, loaders[:1] if is_one_set else loaders))
        rounds = self._indexed(loaders, indexed, lengths) if is_one_set else _apart(loaders, keyings, lengths)
        counts = [0] * len(loaders)
        failed: set[int] = set()
        while True:
            with GeneratorsKept():
                found = next(rounds, None)
            for index, most in enumerate(lengths):
                if index in (found or ()):
                    counts[index] += 1
                elif most is not None and counts[index] < most and index not in failed:
                    raise UnsupportedError(
                        f"a training loader yields {counts[index]} batches, but its length is {most}, so its epoch "
                        f"is not validated{_place(loaders[index])}"
                    )
            if found is None:
                return
            failed |= {index for index, batch in found.items() if isinstance(batch, Exception)}
            yield found

    def close(self) -> None:
        """End the worker processes."""
        if self._reader is not None:
            self._reader.close()

    def _indexed(
        self, loaders: Sequence[Any], keyings: Sequence[Keying], lengths: Sequence[int | None]
    ) -> Iterator[Round]:
        self._reader = self._reader or BatchReader(loaders[0])
        streams, sharing = [], {}
        for index, (loader, keying, most) in enumerate(zip(loaders, keyings, lengths, strict=True)):
            stream = keying.stream(loader)
            stream.most = most if stream.most is None else min(stream.most, most or stream.most)
            if stream.key not in sharing:
                streams.append(stream)
            sharing.setdefault(stream.key, []).append(index)
        number, found = 0, {}
        for index, at, batch in self._reader.epoch(streams):
            if at > number:
                if found:
                    yield found
                number, found = at, {}
            found.update(dict.fromkeys(sharing[streams[index].key], _prepared(batch, keyings[0])))
        if found:
            yield found


def _prepared(batch: Any, keying: Keying) -> Any:
    """Return a batch as its trials get it, or the error that this raises."""
    try:
        return batch if isinstance(batch, Exception) else keying.prepare(batch)
    except Exception as error:
        return error


def read_ahead(loader: Any) -> int:
    """Return how many batches the worker processes of a loader may hold; 0 if it has none or does not say."""
    workers = getattr(loader, "num_workers", 0)
    return int(workers * (getattr(loader, "prefetch_factor", None) or 2)) if isinstance(workers, int) else 0


def _apart(loaders: Sequence[Any], keyings: Sequence[Keying | None], lengths: Sequence[int | None]) -> Iterator[Round]:
    """Yield rounds of loaders that are read separately."""
    batches: dict[int, Iterator[Any]] = {}
    number = 0
    while True:
        found: Round = {}
        for index, (loader, keying) in enumerate(zip(loaders, keyings, strict=True)):
            if (number and index not in batches) or number == lengths[index]:
                continue
            try:
                if not number:
                    batches[index] = iter(loader) if keying is None else keying.epoch(loader)
                found[index] = next(batches[index])
            except StopIteration:
                batches.pop(index, None)
            except Exception as error:
                batches.pop(index, None)
                found[index] = error
        if not found:
            return
        yield found
        number += 1
