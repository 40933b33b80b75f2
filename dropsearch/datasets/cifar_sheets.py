"""Converts the package of CIFAR-10, with PNG sheets of one image per row and JSON lists of labels, to IDX files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dropsearch.datasets.catalogue import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS

_SIDE = 32
_IMAGES = {
    TRAIN_IMAGES: tuple(f"package/data_batch_{number}.png" for number in range(1, 6)),
    TEST_IMAGES: ("package/test_batch.png",),
}
_LABELS = {
    TRAIN_LABELS: "package/train_lables.json",
    TEST_LABELS: "package/test_lables.json",
}  # spelled so in the package

MEMBERS = (*_IMAGES[TRAIN_IMAGES], *_IMAGES[TEST_IMAGES], *_LABELS.values())
"""Members of the package that are used."""


def write_idx(folder: Path, role: str, target: Path) -> None:
    """Write the IDX file of `role` from the unpacked members in `folder`.

    Images become ``[examples, 3, 32, 32]``, labels ``[examples]``.

    Raises:
        ValueError: A sheet is not an RGB image of 1024 pixels width, or a list does not contain small integers.
        OSError: Pillow cannot decode a sheet.
    """
    if role in _LABELS:
        _write_labels(folder / Path(_LABELS[role]).name, target)
    else:
        _write_images([folder / Path(member).name for member in _IMAGES[role]], target)


def _write_labels(path: Path, target: Path) -> None:
    from dropsearch.datasets import idx

    labels = bytes(json.loads(path.read_bytes()))
    target.write_bytes(idx.header((len(labels),)) + labels)


def _write_images(sheets: Sequence[Path], target: Path) -> None:
    import numpy as np
    from PIL import Image

    from dropsearch.datasets import idx

    count = 0
    with target.open("wb") as sink:
        sink.write(idx.header((0, 3, _SIDE, _SIDE)))
        for path in sheets:
            with Image.open(path, formats=["PNG"]) as sheet:
                if sheet.width != _SIDE * _SIDE or sheet.mode != "RGB":
                    raise ValueError(f"{path.name} must be 1024 RGB pixels wide, got {sheet.width} {sheet.mode}")
                pixels = np.asarray(sheet)
            sink.write(pixels.transpose(0, 2, 1).tobytes())
            count += len(pixels)
        sink.seek(0)
        sink.write(idx.header((count, 3, _SIDE, _SIDE)))
