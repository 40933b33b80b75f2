from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning import Trainer
from sklearn.datasets import load_digits

from dropsearch.core.errors import InputError
from dropsearch.datasets import catalogue
from dropsearch.datasets.catalogue import DATA_SETS
from dropsearch.datasets.data_module import TensorDataModule
from tests.datasets.conftest import cifar_sheets, idx_bytes, image_files, put, sequences_file
from tests.datasets.test_loaders import Recorder

CONF = Path(__file__).parents[2] / "conf" / "data"


@pytest.fixture
def small(pin, tmp_path):
    """A small MNIST in the real format, and its folder."""
    contents = image_files()
    return put(pin("mnist", contents), contents, tmp_path)


def rows(module: TensorDataModule, part: str) -> torch.Tensor:
    return torch.cat([batch[0] for batch in getattr(module, f"{part}_dataloader")()])


def test_digits_are_split_in_three_and_need_no_files():
    assert TensorDataModule("digits", val_fraction=0.25).sizes == {"train": 1078, "val": 360, "test": 359}


def test_digits_hold_every_published_image_once():
    module = TensorDataModule("digits", batch_size=1)
    x = torch.cat([rows(module, part) for part in ("train", "val", "test")])
    published = torch.from_numpy(load_digits().images).float()
    restored = x[:, 0] * (published.std() / x.std())
    restored = (restored - restored.min()).round().flatten(1)
    assert sorted(restored.tolist()) == sorted(published.flatten(1).tolist())


def test_mnist1d_has_its_published_split():
    module = TensorDataModule("mnist1d", train_size=800)
    assert module.sizes == {"train": 800, "val": 200, "test": 1000}


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_batches_have_the_shapes_that_are_promised(name):
    module = TensorDataModule(name)
    x, y = next(iter(module.train_dataloader()))
    assert x.shape == (64, *module.input_shape)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)


def test_the_training_part_is_standardised_and_sets_the_scale_of_the_others():
    module = TensorDataModule("digits", batch_size=1)
    train, test = rows(module, "train"), rows(module, "test")
    assert train.mean().abs() < 1e-5
    assert train.std(correction=0) == pytest.approx(1, abs=1e-5)
    assert test.mean() != 0
    assert test.unique().tolist() == train.unique().tolist()


def test_the_same_options_give_the_same_module():
    first, second = (TensorDataModule("digits", seed=3) for _ in range(2))
    for part in ("train", "val", "test"):
        assert torch.equal(rows(first, part), rows(second, part))
    assert first.digest == second.digest


def test_another_seed_validates_on_others_and_keeps_the_test_set():
    first, second = TensorDataModule("mnist1d", seed=0), TensorDataModule("mnist1d", seed=1)
    assert not torch.allclose(rows(first, "val"), rows(second, "val"), atol=0.1)
    torch.testing.assert_close(rows(first, "test"), rows(second, "test"), atol=0.1, rtol=0)


def test_the_training_order_is_that_of_the_seed_that_is_given():
    module = TensorDataModule("digits")
    assert torch.equal(module.train_loader(5).order(2), module.train_loader(5).order(2))
    assert not torch.equal(module.train_loader(5).order(2), module.train_loader(6).order(2))


def test_the_train_part_is_a_stratified_part_as_large_as_validation():
    module = TensorDataModule("digits", batch_size=1)
    x, y = next(iter(module.train_part_loader()))
    train = {tuple(row) for row in rows(module, "train").flatten(1).tolist()}
    assert len(y) == module.sizes["val"]
    assert {tuple(row) for row in x.flatten(1).tolist()} <= train
    assert torch.bincount(y).min() > 20


def test_the_train_part_is_all_of_a_training_set_that_is_smaller():
    module = TensorDataModule("digits", train_size=100, val_fraction=0.8)
    assert sum(len(y) for _, y in module.train_part_loader()) == 100


def test_evaluation_is_in_order():
    module = TensorDataModule("digits")
    first, second = rows(module, "val"), rows(module, "val")
    assert torch.equal(first, second)


def test_setup_is_done_once():
    module = TensorDataModule("digits")
    module.setup("fit")
    before = module.train_loader(0).tensors
    module.setup("test")
    assert all(a is b for a, b in zip(before, module.train_loader(0).tensors, strict=True))


def test_tensors_move_to_the_device_and_are_sliced_there():
    module = TensorDataModule("digits")
    assert module.to("meta") is module
    for loader in (module.train_loader(0), module.train_part_loader(), module.test_dataloader()):
        assert {tensor.device.type for batch in loader for tensor in batch} == {"meta"}


def test_a_trainer_takes_the_module_as_it_is(tmp_path):
    module, data = Recorder(), TensorDataModule("mnist1d", train_size=128)
    module.layer = torch.nn.Linear(40, 1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(max_epochs=2, accelerator="cpu", enable_checkpointing=False, default_root_dir=tmp_path, **quiet).fit(
        module, datamodule=data
    )
    labels = data.train_dataloader().tensors[1]
    expected = {epoch: labels[data.train_dataloader().order(epoch)].tolist() for epoch in range(2)}
    assert module.seen == expected


def test_images_are_read_from_idx_files_with_the_published_split(small, tmp_path):
    module = TensorDataModule("mnist", root=tmp_path, batch_size=1)
    assert module.sizes == {"train": 48, "val": 12, "test": 20}
    assert module.source == str(small)


def test_pixels_and_labels_of_an_example_stay_together(small, tmp_path):
    module = TensorDataModule("mnist", root=tmp_path, batch_size=1)
    x, y = next(iter(module.test_dataloader()))
    pixels = x[:, 0, 0, 0]
    numbers = 60 + ((pixels - pixels.min()) / (pixels.max() - pixels.min()) * 19).round().long()
    assert torch.equal(numbers % 10, y)


def test_files_compressed_with_gzip_are_read_as_well(small, tmp_path):
    plain = TensorDataModule("mnist", root=tmp_path, batch_size=1)
    plain.setup()
    for path in list(small.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    compressed = TensorDataModule("mnist", root=tmp_path, batch_size=1)
    assert torch.equal(rows(plain, "test"), rows(compressed, "test"))
    assert plain.digest == compressed.digest


def test_what_the_systems_package_installed_is_found_without_fetching(small, pin, tmp_path, monkeypatch):
    installed = replace(pin("fashion_mnist", image_files()), installed=str(small))
    monkeypatch.setitem(DATA_SETS, "fashion_mnist", installed)
    assert TensorDataModule("fashion_mnist", root=tmp_path / "elsewhere", batch_size=1).source == str(small)


def test_colour_images_have_their_channels_standardised_apart(pin, tmp_path):
    contents = cifar_sheets().files()
    put(pin("cifar10", contents), contents, tmp_path)
    module = TensorDataModule("cifar10", root=tmp_path, batch_size=1)
    train = rows(module, "train")
    assert train.shape == (16, 3, 32, 32)
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_sequences_are_padded_with_zeros_and_standardised_without_the_padding(pin, tmp_path):
    contents = {catalogue.SEQUENCES: sequences_file([3, 92, 1, *[10] * 37])}
    put(pin("spoken_digits", contents), contents, tmp_path)
    module = TensorDataModule("spoken_digits", root=tmp_path, batch_size=1)
    x, lengths, y = (torch.cat(column) for column in zip(*module.train_dataloader(), strict=True))
    inside = torch.arange(92) < lengths[:, None]
    assert (x.shape[1:], lengths.dtype, y.dtype) == ((92, 13), torch.int64, torch.int64)
    assert not x[~inside].any()
    torch.testing.assert_close(x[inside].mean(0), torch.zeros(13), atol=1e-5, rtol=0)
    torch.testing.assert_close(x[inside].std(0, correction=0), torch.ones(13), atol=1e-5, rtol=0)


@pytest.mark.parametrize("root", ["data", "other"])
def test_missing_data_names_the_command_and_the_root(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DATA_SETS, "fashion_mnist", replace(DATA_SETS["fashion_mnist"], installed="nowhere"))
    with pytest.raises(InputError) as caught:
        TensorDataModule("fashion_mnist", root=root).setup()
    command = "scripts/fetch_data fashion_mnist" + (" --root other" if root == "other" else "")
    assert f"`{command}`" in str(caught.value)
    assert f"data.root={root}" in str(caught.value)
    assert "\n" not in str(caught.value)


def damage(content: bytes, how: str) -> bytes:
    return {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "longer": content + b"x",
        "flipped": content[:-1] + bytes([content[-1] ^ 1]),
    }[how]


@pytest.mark.parametrize("how", ["truncated", "empty", "longer", "flipped"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_file_is_named_with_the_command_that_mends_it(small, tmp_path, name, how):
    path = small / name
    path.write_bytes(damage(path.read_bytes(), how))
    with pytest.raises(InputError) as caught:
        TensorDataModule("mnist", root=tmp_path).setup()
    assert str(path) in str(caught.value)
    assert f"`scripts/fetch_data mnist --root {tmp_path}`" in str(caught.value)


def test_a_gzip_file_that_ends_early_is_named(small, tmp_path):
    path = small / "train-images-idx3-ubyte"
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name(f"{path.name}.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz must be a complete gzip file"):
        TensorDataModule("mnist", root=tmp_path).setup()


IMAGES, LABELS = catalogue.TRAIN_IMAGES, catalogue.TRAIN_LABELS


@pytest.mark.parametrize(
    ("role", "content", "message"),
    [
        (IMAGES, b"\x89PNG" + bytes(40), "must start with the IDX magic number"),
        (IMAGES, idx_bytes(np.zeros((60, 27, 28), np.uint8)), r"must contain images of \(28, 28\), got \(27, 28\)"),
        (LABELS, idx_bytes(np.zeros(59, np.uint8)), "must contain 60 labels, one per example"),
        (LABELS, idx_bytes(np.full(60, 10, np.uint8)), "must contain labels from 0 to 9, got 10 to 10"),
    ],
)
def test_a_file_of_another_structure_is_refused(pin, tmp_path, role, content, message):
    contents = {**image_files(), role: content}
    put(pin("mnist", contents), contents, tmp_path)
    with pytest.raises(InputError, match=message):
        TensorDataModule("mnist", root=tmp_path).setup()


def pickled_npz() -> bytes:
    import io

    stream = io.BytesIO()
    np.savez(stream, X=np.array([{}], dtype=object), lengths=np.array([1]), y=np.array([0]))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickled_npz(), "allow_pickle=False"),
        (b"PK\x03\x04 no archive", "must be an npz of X, lengths and y"),
        (idx_bytes(np.zeros(3, np.uint8)), "digits.npz"),
        (sequences_file([93] * 20), "must contain sequences of 1 to 92 frames, got 93 to 93"),
        (sequences_file([5] * 20, features=12), r"must contain 100 frames of 13 features, got \(100, 12\)"),
    ],
)
def test_sequences_of_another_structure_are_refused(pin, tmp_path, content, message):
    contents = {catalogue.SEQUENCES: content}
    put(pin("spoken_digits", contents), contents, tmp_path)
    with pytest.raises(InputError, match=message):
        TensorDataModule("spoken_digits", root=tmp_path).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size must be at least 1, got 0"),
        ({"train_size": 0}, r"data\.train_size must be at least 1, got 0"),
        ({"val_fraction": 0.0}, r"data\.val_fraction must be above 0, got 0\.0"),
        ({"val_fraction": 1.0}, r"data\.val_fraction must be below 1, got 1\.0"),
        ({"val_fraction": float("nan")}, r"data\.val_fraction must be a finite number, got nan"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_options_that_no_data_could_meet_are_refused_at_once(options, message):
    with pytest.raises(InputError, match=message):
        TensorDataModule("digits", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train_size": 1151},
            r"data\.train_size must be at most 1150, since data\.val_fraction=0\.2 of 1438 examples",
        ),
        ({"batch_size": 1151}, r"data\.batch_size must be at most the 1150 training examples, got 1151"),
        ({"batch_size": 64, "train_size": 63}, r"data\.batch_size must be at most the 63 training examples, got 64"),
    ],
)
def test_sizes_above_the_data_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TensorDataModule("digits", **options).setup()


def test_the_largest_sizes_are_accepted():
    module = TensorDataModule("digits", train_size=1150, batch_size=1150)
    assert len(module.train_dataloader()) == 1


def test_an_unknown_name_is_answered_with_a_close_one():
    with pytest.raises(InputError, match=r'got "fashon_mnist" \(did you mean "fashion_mnist"\?\)'):
        TensorDataModule("fashon_mnist")


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_set_has_a_configuration_that_its_module_takes(name):
    options = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert options.pop("_target_") == "dropsearch.datasets.data_module.TensorDataModule"
    assert options.pop("seed") == "${seed}"
    assert set(options) == {"name", "root", "batch_size", "train_size", "val_fraction"}
    assert options["name"] == name
    module = TensorDataModule(**options)
    assert (module.input_shape, module.classes) == (DATA_SETS[name].input_shape, DATA_SETS[name].classes)
