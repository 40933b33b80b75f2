"""User code that a study consists of: a change of what it computes is noticed, a change of how it is written is not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from sklearn.linear_model import LogisticRegression

from dropsearch.core.errors import InputError
from dropsearch.experiment.user_code import code_digests
from dropsearch.study.studies import check_studies, open_study
from tests.experiment.conftest import ONE_TRIAL, Cli

SOURCE = '''
import torch
from lightning import LightningDataModule, LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import other_place

GAMMA = 2.0
DATA_DIR = "/data/one"
CRITERIA = {"focal": lambda loss: loss**GAMMA}


def smoothed(y, classes):
    return F.one_hot(y, classes).float()


class Focal(nn.Module):
    """A loss."""

    def forward(self, logits, y):
        return CRITERIA["focal"](F.cross_entropy(logits, smoothed(y, 2)))


class Base(LightningModule):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Net(Base):
    def __init__(self, lr: float = 1e-3, scale: float = 1.0):
        super().__init__()
        self.lr, self.criterion = lr, Focal()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))

    def forward(self, x):
        return self.layers(F.relu(x))

    def _step(self, batch, name):
        x, y = batch
        loss = self.criterion(self(x), y) * other_place.WEIGHT
        self.log(name, loss)
        return loss

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train_loss")

    def validation_step(self, batch, batch_idx):
        self._step(batch, "val_loss")


class Rows(Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, index):
        x = torch.arange(4.0) + index
        return x / 32, index % 2


def collate(rows):
    return torch.utils.data.default_collate(rows)


class Data(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Rows(), batch_size=8, collate_fn=collate)

    def val_dataloader(self):
        return DataLoader(Rows(), batch_size=8, collate_fn=lambda rows: collate(rows))


def unrelated():
    return 1
'''
OTHER = "WEIGHT = 1.0\n"
Imported = Callable[[str, str], Any]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Imported:
    """Return a function that writes the user's two files anew and imports them."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def again(source: str, other: str = OTHER) -> Any:
        (tmp_path / "place.py").write_text(source)
        (tmp_path / "other_place.py").write_text(other)
        for name in ("place", "other_place"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return importlib.import_module("place")

    return again


def digests(module: Any, make: Callable[[Any], Any] = lambda module: module.Net) -> dict[str, str]:
    data = module.Data()
    return code_digests([make(module), module.Net(), data, data.train_dataloader(), data.val_dataloader()])


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("F.relu(x)", "F.gelu(x)", "place.Net"),
        ("F.cross_entropy(logits", "F.mse_loss(logits", "place.Focal"),
        ("F.one_hot(y, classes).float()", "0.9 * F.one_hot(y, classes)", "place.smoothed"),
        ("AdamW(", "Adam(", "place.Base"),
        ("GAMMA = 2.0", "GAMMA = 1.0", "place.GAMMA"),
        ("loss**GAMMA}", "loss * GAMMA}", "place.CRITERIA"),
        ("x / 32", "x / 16", "place.Rows"),
        ("default_collate(rows)", "default_collate(rows[:1])", "place.collate"),
        ("lambda rows: collate(rows)", "lambda rows: collate(rows[:2])", "place.Data"),
        ("scale: float = 1.0", "scale: float = 2.0", "place.Net"),
    ],
)
def test_what_computes_something_else_is_named(imported: Imported, before: str, after: str, changed: str) -> None:
    first, then = digests(imported(SOURCE)), digests(imported(SOURCE.replace(before, after)))
    different = {name for name in {*first, *then} if first.get(name) != then.get(name)}
    assert changed in different
    assert {name for name in different if "<lambda>" not in name} == {changed}


def test_settings_of_other_modules_count(imported: Imported) -> None:
    first, then = digests(imported(SOURCE)), digests(imported(SOURCE, "WEIGHT = 2.0\n"))
    assert {name for name in first if first[name] != then[name]} == {"other_place.WEIGHT"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("        x, y = batch\n", "        # both\n        x, y = (\n            batch\n        )\n\n"),
        ('    """A loss."""\n', '    """The loss of Lin et al."""\n'),
        ("    def forward(self, x):\n", '    def forward(self, x):\n        """Return logits."""\n'),
        ("def forward(self, x):", "def forward(self, x: torch.Tensor) -> torch.Tensor:"),
        ("    return 1", "    return 2"),
        ("/data/one", "/data/two"),
        ("\nGAMMA", "\nUNUSED = 3\nGAMMA"),
    ],
)
def test_how_it_is_written_does_not_count(imported: Imported, before: str, after: str) -> None:
    assert before in SOURCE
    assert digests(imported(SOURCE)) == digests(imported(SOURCE.replace(before, after)))


def test_code_of_libraries_and_of_this_package_is_left_out(imported: Imported) -> None:
    assert {name.partition(".")[0] for name in digests(imported(SOURCE))} == {"place", "other_place"}


def test_of_an_installed_package_the_classes_of_the_roots_count() -> None:
    found = code_digests([LogisticRegression()])
    assert "sklearn.linear_model._logistic.LogisticRegression" in found
    assert "sklearn.base.BaseEstimator" in found
    assert not [name for name in found if name.rpartition(".")[2].islower()], "no function that they call"


def test_a_closure_counts_with_its_values(imported: Imported) -> None:
    module = imported(SOURCE)

    def made_with(width: int, root: str) -> Callable[[], Any]:
        return lambda: module.Net(scale=width, extra=root)

    makers = made_with(1, "/a"), made_with(2, "/a"), made_with(1, "/b")
    one, two, elsewhere = (code_digests([make]) for make in makers)
    assert one != two
    assert one == elsewhere, "where the data are is no part of the code"


def test_a_closure_counts_with_the_class_of_what_it_holds(imported: Imported) -> None:
    module = imported(SOURCE)

    def made_with(criterion: Any) -> Callable[[], Any]:
        return lambda: module.Net(criterion)

    one, two = code_digests([made_with(module.Focal())]), code_digests([made_with(module.Rows())])
    assert [name.rpartition(".")[2] for name in one.keys() & two.keys() if one[name] != two[name]] == ["criterion"]


def test_what_is_imported_late_is_no_change() -> None:
    storage, before = InMemoryStorage(), {"a.Net": "1"}
    open_study(storage, "s/none", {"code": before}, None)
    check_studies(storage, {"s/none": {"code": {**before, "b.imported_in_a_step": "2"}}})
    with pytest.raises(InputError, match=r"the code of a\.Net must be the same as when study s/none began"):
        check_studies(storage, {"s/none": {"code": {"a.Net": "3"}}})


def test_lambdas_of_one_line_and_partials_are_told_apart(imported: Imported) -> None:
    module = imported(SOURCE)
    some = [lambda: module.Net(0.1), lambda: module.Net(0.1)]
    assert digests(module, lambda _: some[0]) == digests(module, lambda _: some[1])
    assert "place.smoothed" in code_digests([partial(module.smoothed, classes=2)])


def test_what_has_no_source_is_left_out() -> None:
    scope: dict[str, Any] = {"__name__": "made_here"}
    exec("def loss(x):\n    return x + 1", scope)
    assert code_digests([scope["loss"]]) == {}


def test_locals_and_attributes_are_no_globals(imported: Imported) -> None:
    # As in a notebook, whose globals have the names of locals: the last output, a loss, an index.
    module = imported(SOURCE)
    before = digests(module)
    for number, name in enumerate(("_", "x", "y", "loss", "batch", "rows", "lr", "log", "layers")):
        setattr(module, name, number)
    assert digests(module) == before


def test_a_file_that_was_edited_after_its_import_is_left_out(imported: Imported, tmp_path: Path) -> None:
    module = imported(SOURCE)
    assert "place.Net" in digests(module)
    (tmp_path / "place.py").write_text(SOURCE.replace("F.relu(x)", "F.gelu(x)"))
    assert "place.Net" not in digests(module), "other code runs than stands there"


WRAPPED = """
import dataclasses
import functools
import os
import time

import torch
from torch import nn

from other_place import *

ACT = nn.ReLU

if True:
    DEVICE = "a"
else:
    DEVICE = "b"
A, B = 1, 2
BASE = "bert/tiny-a"
CALLS = {}


def timed(function):
    @functools.wraps(function)
    def inner(*args, **more):
        CALLS[function.__name__] = time.time()
        return function(*args, **more)

    return inner


def helper(x):
    return x + 1


@functools.lru_cache
def weights():
    return 3


@dataclasses.dataclass
class Options:
    margin: float = 0.5


class Held:
    def __call__(self, x):
        return x


class Slots:
    __slots__ = ("held",)

    def __init__(self):
        self.held = Held()


class Net:
    def __init__(self):
        self.options, self.slots = Options(), Slots()

    @timed
    def prepare(self):
        return weights(), ACT(), WEIGHT

    @torch.no_grad()
    def step(self, x):
        return helper(x) * A, DEVICE, BASE
"""


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("x + 1", "x + 2", "place.helper"),
        ("margin: float = 0.5", "margin: float = 0.6", "place.Options"),
        ("        return x\n", "        return -x\n", "place.Held"),
        ("ACT = nn.ReLU", "ACT = nn.GELU", "place.ACT"),
        ("return 3", "return 4", "place.weights"),
        ("return function(*args, **more)", "return function(*args)", "place.timed"),
        ('DEVICE = "b"', 'DEVICE = "c"', "place.DEVICE"),
        ("A, B = 1, 2", "A, B = 3, 2", "place.A"),
        ("bert/tiny-a", "bert/tiny-b", "place.BASE"),
    ],
)
def test_what_is_behind_wrappers_counts(imported: Imported, before: str, after: str, changed: str) -> None:
    first = code_digests([imported(WRAPPED).Net()])
    then = code_digests([imported(WRAPPED.replace(before, after)).Net()])
    assert {name for name in {*first, *then} if first.get(name) != then.get(name)} == {changed}


@pytest.mark.parametrize(("imports", "name"), [("WEIGHT as W", "W"), ("*", "WEIGHT")])
def test_settings_that_are_imported_by_name_count(imported: Imported, imports: str, name: str) -> None:
    source = f"from other_place import {imports}\n\n\nclass Net:\n    def step(self):\n        return {name}\n"
    first, then = (code_digests([imported(source, f"WEIGHT = {weight}\n").Net]) for weight in (1, 2))
    assert {name for name in first if first[name] != then[name]} == {"other_place.WEIGHT"}


def test_much_data_does_not_hide_the_code(imported: Imported) -> None:
    module = imported(SOURCE)
    data = module.Data()
    data.sentences = [[(f"word{i}", {"tag": [i]}) for i in range(25)] for _ in range(2000)]
    assert {"place.Net", "place.Focal", "place.smoothed"} <= code_digests([data, module.Net()]).keys()


RUN = ("model._target_=place.Net", "data._target_=place.Data", *ONE_TRIAL, "output_dir=out")


def test_a_study_stops_where_code_has_changed_and_goes_on_if_told(cli: Cli, imported: Imported, tmp_path: Path) -> None:
    imported(SOURCE)
    assert cli(*RUN).status == 0
    imported(SOURCE.replace("F.relu(x)", "F.gelu(x)"))
    journal = (tmp_path / "out" / "study.journal").read_bytes()
    refused = cli(*RUN, "study.n_trials=2")
    assert refused.status == 2
    assert "the code of place.Net must be the same as when study Net-Data/none began: undo the change" in refused.err
    assert (tmp_path / "out" / "study.journal").read_bytes() == journal
    told = cli(*RUN, "study.n_trials=2", "study.allow_code_changes=true")
    assert told.status == 0, told.err
    note = "the code of place.Net has changed since the study began"
    assert note in (tmp_path / "out" / "results.json").read_text()
    later = cli(*RUN, "study.n_trials=2")
    assert later.status == 0, "the change was accepted once and for all"
    assert note in (tmp_path / "out" / "results.json").read_text()
