"""The IDX format of the MNIST files: parsing, and writing from the package of CIFAR-10.

Two zero bytes, the element type (8: unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit
integer, and the elements in C order (LeCun, Cortes and Burges, "The MNIST database"). The package of CIFAR-10 has PNG
sheets of one image per row and JSON lists of labels. Only the standard library is imported with this file.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dropsearch.datasets.catalogue import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_UNSIGNED_BYTE = 8
_SIDE = 32
_IMAGES = {
    TRAIN_IMAGES: tuple(f"package/data_batch_{number}.png" for number in range(1, 6)),
    TEST_IMAGES: ("package/test_batch.png",),
}
_LABELS = {TRAIN_LABELS: "package/train_lables.json", TEST_LABELS: "package/test_lables.json"}  # spelled so

SHEETS = (*_IMAGES[TRAIN_IMAGES], *_IMAGES[TEST_IMAGES], *_LABELS.values())


def header(shape: tuple[int, ...]) -> bytes:
    """Return the bytes that precede the elements of an array of unsigned bytes."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, _UNSIGNED_BYTE, len(shape), *shape)


def parse(content: bytes) -> NDArray[np.uint8]:
    """Return the array of an IDX file as a read-only view of `content`; raise ValueError if it is none."""
    import numpy as np

    if len(content) < 4 or content[:3] != bytes((0, 0, _UNSIGNED_BYTE)) or content[3] == 0:
        raise ValueError(f"must start with the IDX magic number 00 00 08, got {content[:4].hex(' ') or 'nothing'}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"must have {content[3]} dimensions, but ends within them")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(f"must have {math.prod(shape)} elements by its dimensions, got {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def write_from_sheets(folder: Path, role: str, target: Path) -> None:
    """Write the IDX file of `role` from the unpacked members of CIFAR-10's package in `folder`.

    Images become ``[examples, 3, 32, 32]``, labels ``[examples]``. Raises ValueError or OSError for other content.
    """
    if role in _LABELS:
        labels = bytes(json.loads((folder / Path(_LABELS[role]).name).read_bytes()))
        target.write_bytes(header((len(labels),)) + labels)
    else:
        _write_images([folder / Path(member).name for member in _IMAGES[role]], target)


def _write_images(sheets: Sequence[Path], target: Path) -> None:
    import numpy as np
    from PIL import Image

    count = 0
    with target.open("wb") as sink:
        sink.write(header((0, 3, _SIDE, _SIDE)))
        for path in sheets:
            with Image.open(path, formats=["PNG"]) as sheet:
                if sheet.width != _SIDE * _SIDE or sheet.mode != "RGB":
                    raise ValueError(f"{path.name} must be 1024 RGB pixels wide, got {sheet.width} {sheet.mode}")
                pixels = np.asarray(sheet)
            sink.write(pixels.transpose(0, 2, 1).tobytes())
            count += len(pixels)
        sink.seek(0)
        sink.write(header((count, 3, _SIDE, _SIDE)))
