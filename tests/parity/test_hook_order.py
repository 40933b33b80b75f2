"""Every hook of a module, a callback and a data module is called in a trial as often and in the order of Lightning."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from lightning import Callback, LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset

from dropsearch.datasets.user_data import UserData
from tests.parity.census import Case, Cell, in_plain_lightning, in_trial
from tests.parity.conftest import source

OWN = {"on_gpu", "on_load_checkpoint", "on_save_checkpoint"}


def hooks(kind: type) -> list[str]:
    """Return the names of the hooks that a class of Lightning has."""
    names = {"setup", "teardown", "configure_optimizers", "configure_callbacks", "configure_model", "optimizer_step"}
    names |= {"optimizer_zero_grad", "backward", "lr_scheduler_step", "configure_gradient_clipping", "prepare_data"}
    names |= {name for name in dir(kind) if name.startswith(("on_", "transfer_batch"))} - OWN
    return sorted(name for name in names if inspect.isfunction(getattr(kind, name, None)))


def noting(kind: Any, base: type, calls: list[str]) -> Any:
    """Return a subclass that notes the calls of its hooks (of modules the first object's), and when they come."""
    first: list[int] = []

    def noted(name: str) -> Any:
        inner = getattr(kind, name)

        def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(self, LightningModule):
                first.extend([] if first else [id(self)])
                if first != [id(self)]:  # a copy, on which a trial measures what training is not to see
                    return inner(self, *args, **kwargs)
            trainer = self.trainer if isinstance(self, LightningModule) else next(iter(args), None)
            where = (getattr(trainer, "current_epoch", "-"), getattr(trainer, "global_step", "-"))
            training = trainer.training if hasattr(trainer, "training") else "-"
            calls.append(f"{base.__name__}.{name} {where} {training}")
            return inner(self, *args, **kwargs)

        return hook

    return type(kind.__name__, (kind,), {name: noted(name) for name in hooks(base)})


class Data(LightningDataModule):
    def batches(self, seed: int) -> Any:
        x = torch.randn(24, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)

    def train_dataloader(self) -> Any:
        return self.batches(1)

    def val_dataloader(self) -> Any:
        return self.batches(2)


def orders(trainer: Any, data: Any = source) -> tuple[list[str], list[str]]:
    """Return the calls in a trial and under plain Lightning."""
    found: list[list[str]] = []
    for train in (in_trial, in_plain_lightning):
        calls: list[str] = []
        module, callback = noting(Cell, LightningModule, calls), noting(Callback, Callback, calls)
        train(Case(module, lambda made=callback: {**trainer, "callbacks": [made()]}, data), 0.0)
        found.append(calls)
    return found[0], found[1]


@pytest.mark.parametrize(
    "trainer",
    [
        {}, {"num_sanity_val_steps": 1}, {"val_check_interval": 0.5, "accumulate_grad_batches": 2},
        {"check_val_every_n_epoch": 2, "gradient_clip_val": 1.0}, {"limit_val_batches": 1, "max_steps": 5},
    ],
)  # fmt: skip
def test_the_hooks_of_modules_and_callbacks(trainer: dict[str, Any]) -> None:
    ours, theirs = orders(trainer)
    assert ours == theirs
    assert len(set(theirs)) > 60


def test_the_hooks_of_data_modules() -> None:
    calls: list[str] = []
    given = UserData(noting(Data, LightningDataModule, calls)(), "Data")
    found = []
    for train in (lambda case: in_trial(case, 0.0), lambda case: in_plain_lightning(case, 0.0)):
        calls.clear()
        train(Case(data=lambda: given))
        found.append([*calls])
    # What is measured on the training part passes the hooks that change batches, too.
    ours, theirs = ([call for call in calls if "_batch_" not in call] for calls in found)
    assert ours == theirs
    assert {*found[0]} == {*found[1]}
    assert any("on_after_batch_transfer" in call for call in found[0])
