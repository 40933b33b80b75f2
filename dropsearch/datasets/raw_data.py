"""Reads data sets as published, before splitting, and standardizes them by the scale of the training set."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropsearch.core.errors import InputError
from dropsearch.datasets import idx, mnist1d
from dropsearch.datasets.catalogue import (
    SEQUENCES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    DataSet,
    content_of,
    digest_of,
    fetch_command,
    folder_of,
    path_of,
)
from dropsearch.datasets.splits import Indices

T = TypeVar("T")


@dataclass(frozen=True)
class RawData:
    """All examples of a data set, training examples first."""

    x: NDArray[Any]
    """``[examples, *input_shape]``: bytes or floats, not standardized; sequences are zero-padded."""
    labels: NDArray[np.int64]
    """``[examples]``, from 0."""
    digest: str
    source: str
    published_test: int = 0
    """Size of the published test split, at the end of the examples; 0 if there is none."""
    lengths: NDArray[np.int64] | None = None
    """Number of frames of each sequence, ``[examples]``; None for images and signals."""


def read_raw_data(data_set: DataSet, root: str | Path) -> RawData:
    """Read or generate a data set; raise `InputError` if its files are missing or invalid."""
    if data_set.name == "digits":
        return _digits()
    if data_set.name == "mnist1d":
        return _mnist1d()
    read = _sequences if data_set.layout == "sequence" else _image_files
    return read(data_set, _Folder(data_set, root))


class _Folder:
    """Reads the files of a data set; errors name the file and the command that replaces it."""

    def __init__(self, data_set: DataSet, root: str | Path) -> None:
        self.data_set, self.root = data_set, root
        self.path = folder_of(data_set, root)

    def read(self, role: str, parse: Callable[[bytes], T]) -> T:
        file = self.data_set.file(role)
        path = path_of(self.path, file)
        assert path is not None, "folder_of found it"
        try:
            return parse(content_of(path, file))
        except (ValueError, OSError) as error:
            command = fetch_command(self.data_set.name, self.root)
            raise InputError(f"data file {path} {error}: run `{command}` to replace it") from error


def _image_files(data_set: DataSet, folder: _Folder) -> RawData:
    train = _labelled_images(data_set, folder, TRAIN_IMAGES, TRAIN_LABELS)
    test = _labelled_images(data_set, folder, TEST_IMAGES, TEST_LABELS)
    images, labels = (np.concatenate(parts) for parts in zip(train, test, strict=True))
    return RawData(
        images,
        labels.astype(np.int64),
        digest=digest_of(data_set.files),
        source=str(folder.path),
        published_test=len(test[0]),
    )


def _labelled_images(
    data_set: DataSet, folder: _Folder, images_role: str, labels_role: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = folder.read(images_role, lambda content: _images(content, data_set))

    def labels_of(content: bytes) -> NDArray[np.uint8]:
        labels = idx.parse(content)
        _check_labels(labels, len(images), data_set.classes)
        return labels

    return images, folder.read(labels_role, labels_of)


def _images(content: bytes, data_set: DataSet) -> NDArray[np.uint8]:
    images = idx.parse(content)
    channels, height, width = data_set.input_shape
    expected = (height, width) if images.ndim == 3 else (channels, height, width)
    if images.shape[1:] != expected:
        raise ValueError(f"must contain images of {expected}, got {images.shape[1:]}")
    return images.reshape(len(images), channels, height, width)


def _check_labels(labels: NDArray[Any], count: int, classes: int) -> None:
    if labels.shape != (count,):
        raise ValueError(f"must contain {count} labels, one per example, got shape {labels.shape}")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"must contain labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}")


def _sequences(data_set: DataSet, folder: _Folder) -> RawData:
    """Read sequences and pad them.

    The spoken digits have neither speaker labels nor a published split. All parts contain recordings of all six
    speakers, so accuracy is measured on known voices.
    """
    frames, lengths, labels = folder.read(SEQUENCES, lambda content: _sequence_arrays(content, data_set))
    longest, features = data_set.input_shape
    padded = np.zeros((len(lengths), longest, features), np.float32)
    padded[np.arange(longest) < lengths[:, None]] = frames
    return RawData(
        padded,
        labels.astype(np.int64),
        digest=digest_of(data_set.files),
        source=str(folder.path),
        lengths=lengths.astype(np.int64),
    )


def _sequence_arrays(content: bytes, data_set: DataSet) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return frames ``[all frames, features]``, lengths ``[examples]`` and labels ``[examples]``."""
    longest, features = data_set.input_shape
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            frames, lengths, labels = arrays["X"], arrays["lengths"], arrays["y"]
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"must be an npz of X, lengths and y ({error})") from error
    if frames.shape != (int(lengths.sum()), features):
        raise ValueError(f"must contain {lengths.sum()} frames of {features} features, got {frames.shape}")
    if not 1 <= int(lengths.min()) <= int(lengths.max()) <= longest:
        raise ValueError(f"must contain sequences of 1 to {longest} frames, got {lengths.min()} to {lengths.max()}")
    _check_labels(labels, len(lengths), data_set.classes)
    return frames, lengths, labels


def _digits() -> RawData:
    import sklearn

    images, labels = _packaged_digits()
    return RawData(images.copy(), labels.copy(), _digest(images, labels), f"scikit-learn {sklearn.__version__}")


@cache
def _packaged_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Parse scikit-learn's text file, which takes longer than all else that a small data module does, once."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64)


def _mnist1d() -> RawData:
    signals, labels, test = mnist1d.generate()
    signals = signals.astype(np.float32)[:, None]
    return RawData(signals, labels, _digest(signals, labels), "generated (MNIST-1D, seed 42)", published_test=test)


def _digest(*arrays: NDArray[Any]) -> str:
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()


_CHUNK = 4096
"""Number of rows that are converted to float64 at a time."""


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each channel, float32 ``[channels]``."""

    mean: Tensor
    std: Tensor

    def apply(self, x: Tensor, channel: int) -> Tensor:
        """Return `x` standardized as float32; `channel` is the dimension of the channels."""
        shape = [1] * x.ndim
        shape[channel] = -1
        return x.to(torch.float32, copy=True).sub_(self.mean.view(shape)).div_(self.std.view(shape))

    def tensors(self, raw: RawData, rows: Indices) -> tuple[Tensor, ...]:
        """Return the standardized inputs of some examples, for sequences also their lengths, and the labels."""
        x, y = torch.from_numpy(raw.x[rows]), torch.from_numpy(raw.labels[rows])
        if raw.lengths is None:
            return self.apply(x, channel=1), y
        lengths = torch.from_numpy(raw.lengths[rows])
        return self.apply(x, channel=2).masked_fill_(~_frames(x, lengths)[..., None], 0.0), lengths, y


def scale_of(raw: RawData, rows: Indices) -> Scale:
    """Return the scale of some examples, without the padding of sequences."""
    x = torch.from_numpy(raw.x[rows])
    return measure(x if raw.lengths is None else x[_frames(x, torch.from_numpy(raw.lengths[rows]))])


def _frames(x: Tensor, lengths: Tensor) -> Tensor:
    """Return a mask ``[batch, longest]`` of padded sequences that is False for padding."""
    return torch.arange(x.shape[1]) < lengths[:, None]


def measure(x: Tensor) -> Scale:
    """Return the scale of values of any dtype, ``[rows, channels, ...]``; constant channels get a deviation of 1."""
    mean = _mean(x, torch.zeros(x.shape[1], dtype=torch.float64), power=1)
    std = _mean(x, mean, power=2).sqrt()
    return Scale(mean.float(), torch.where(std > 0, std, 1.0).float())


def _mean(x: Tensor, centre: Tensor, power: int) -> Tensor:
    """Return the mean of ``(x - centre) ** power`` by channel, summed in float64."""
    total = torch.zeros_like(centre)
    for rows in x.split(_CHUNK):
        values = rows.double().flatten(2) if x.ndim > 2 else rows.double()[..., None]
        total += (values - centre[:, None]).pow(power).sum((0, 2))
    return total / (x.numel() // x.shape[1])
