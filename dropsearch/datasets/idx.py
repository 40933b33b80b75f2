"""The IDX format of the MNIST files: a magic number, the dimensions, then unsigned bytes.

Two zero bytes, the element type (8: unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit integer, and the elements in C order (LeCun, Cortes and Burges, "The MNIST database").
"""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

_UNSIGNED_BYTE = 8


def header(shape: tuple[int, ...]) -> bytes:
    """Return the bytes that precede the elements of an array of unsigned bytes."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, _UNSIGNED_BYTE, len(shape), *shape)


def parse(content: bytes) -> NDArray[np.uint8]:
    """Return the array of an IDX file as a read-only view of `content`.

    Raises:
        ValueError: The magic number is not that of unsigned bytes, or the dimensions do not match the length.
    """
    if len(content) < 4 or content[:3] != bytes((0, 0, _UNSIGNED_BYTE)) or content[3] == 0:
        raise ValueError(f"must start with the IDX magic number 00 00 08, got {content[:4].hex(' ') or 'nothing'}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"must have {content[3]} dimensions, but ends within them")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(f"must have {math.prod(shape)} elements by its dimensions, got {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
