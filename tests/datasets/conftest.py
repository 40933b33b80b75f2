"""Small data sets in the real formats, each pinned by its own sizes and sha256."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropsearch.datasets import catalogue
from dropsearch.datasets.catalogue import DATA_SETS, DataSet, RawFile

Pin = Callable[[str, dict[str, bytes]], DataSet]


def idx_bytes(array: np.ndarray) -> bytes:
    """Write an IDX file by hand, so that the project's own writer does not judge its own reader."""
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def image_files(train: int = 60, test: int = 20, shape: tuple[int, ...] = (28, 28)) -> dict[str, bytes]:
    """Return the four files of an image set by role; image number i of the whole set has the pixel i."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (train + test, *shape), dtype=np.uint8)
    images.reshape(train + test, -1)[:, 0] = np.arange(train + test)
    labels = (np.arange(train + test) % 10).astype(np.uint8)
    return {
        catalogue.TRAIN_IMAGES: idx_bytes(images[:train]),
        catalogue.TRAIN_LABELS: idx_bytes(labels[:train]),
        catalogue.TEST_IMAGES: idx_bytes(images[train:]),
        catalogue.TEST_LABELS: idx_bytes(labels[train:]),
    }


def sequences_file(lengths: list[int], features: int = 13) -> bytes:
    """Return an npz of sequences, without pickles."""
    frames = np.random.default_rng(1).normal(5, 3, (sum(lengths), features)).astype(np.float32)
    labels = np.arange(len(lengths)) % 10
    stream = io.BytesIO()
    np.savez(stream, X=frames, lengths=np.array(lengths), y=labels)
    return stream.getvalue()


@dataclass(frozen=True)
class Sheets:
    """CIFAR-10's package in small: its members, and the arrays that they hold."""

    members: dict[str, bytes]
    images: dict[str, np.ndarray]
    labels: dict[str, list[int]]

    def files(self) -> dict[str, bytes]:
        """Return the IDX files that must come of it, by role."""
        return {
            catalogue.TRAIN_IMAGES: idx_bytes(self.images["train"]),
            catalogue.TRAIN_LABELS: idx_bytes(np.array(self.labels["train"], np.uint8)),
            catalogue.TEST_IMAGES: idx_bytes(self.images["test"]),
            catalogue.TEST_LABELS: idx_bytes(np.array(self.labels["test"], np.uint8)),
        }


def cifar_sheets(per_sheet: int = 4) -> Sheets:
    """Return five training sheets and one for test, of `per_sheet` images each."""
    images = np.random.default_rng(2).integers(0, 256, (6 * per_sheet, 3, 32, 32), dtype=np.uint8)
    names = [*(f"package/data_batch_{number}.png" for number in range(1, 6)), "package/test_batch.png"]
    members = {}
    for name, part in zip(names, np.split(images, 6), strict=True):
        stream = io.BytesIO()
        rows = [[tuple(image[:, y, x].tolist()) for y in range(32) for x in range(32)] for image in part]
        Image.fromarray(np.array(rows, np.uint8)).save(stream, "PNG")
        members[name] = stream.getvalue()
    labels = [number % 10 for number in range(6 * per_sheet)]
    train, test = labels[: 5 * per_sheet], labels[5 * per_sheet :]
    members["package/train_lables.json"] = json.dumps(train).encode()
    members["package/test_lables.json"] = json.dumps(test).encode()
    return Sheets(
        members,
        {"train": images[: 5 * per_sheet], "test": images[5 * per_sheet :]},
        {"train": train, "test": test},
    )


@pytest.fixture
def pin(monkeypatch: pytest.MonkeyPatch) -> Pin:
    """Make the catalogue expect the given contents, by role, as the files of a set."""

    def pinned(name: str, contents: dict[str, bytes]) -> DataSet:
        files = tuple(_pinned(file, contents[file.role]) for file in DATA_SETS[name].files)
        data_set = replace(DATA_SETS[name], files=files, installed="")
        monkeypatch.setitem(DATA_SETS, name, data_set)  # pyright: ignore[reportArgumentType]
        return data_set

    return pinned


def _pinned(file: RawFile, content: bytes) -> RawFile:
    return replace(file, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def put(data_set: DataSet, contents: dict[str, bytes], root: Path) -> Path:
    """Write the files of a set to where it is looked for and return the folder."""
    folder = root / data_set.name
    folder.mkdir(parents=True)
    for file in data_set.files:
        (folder / file.name).write_bytes(contents[file.role])
    return folder
