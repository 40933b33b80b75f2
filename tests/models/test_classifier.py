"""The Classifier in a plain Lightning Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.data import DataLoader, TensorDataset

from dropsearch.core.errors import InputError
from dropsearch.models import MLP, Classifier
from dropsearch.models.classifier import accuracy
from dropsearch.models.optimizers import schedule_factor

pytestmark = [
    # A data loader of tensors in memory needs no worker processes, whatever Lightning thinks.
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    # Lightning 2.6 walks batches by a function that PyTorch 2.13 has renamed.
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]


def _loader() -> DataLoader:
    torch.manual_seed(0)
    target = torch.arange(96) % 3
    x = torch.randn(96, 1, 5) + 2 * nn.functional.one_hot(target, 5).unsqueeze(1)
    return DataLoader(TensorDataset(x, target), batch_size=32)


def _trainer(root: Path, epochs: int = 8) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=root,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


def test_trains_with_a_plain_trainer(tmp_path):
    torch.manual_seed(0)
    model = Classifier(MLP((1, 5), 3, hidden=[16], dropout=0.1), lr=0.03)
    trainer = _trainer(tmp_path)
    trainer.fit(model, _loader(), _loader())

    assert set(trainer.callback_metrics) == {"train_loss", "val_loss", "val_acc"}
    assert trainer.callback_metrics["val_acc"] > 0.9
    scores = trainer.test(model, _loader(), verbose=False)[0]
    assert scores["test_acc"] == trainer.callback_metrics["test_acc"] > 0.9
    assert set(scores) == {"test_loss", "test_acc"}


def test_predictions_are_probabilities(tmp_path):
    model = Classifier(MLP((1, 5), 3))
    batches = _trainer(tmp_path).predict(model, _loader())

    probabilities = torch.cat(batches)
    assert probabilities.shape == (96, 3)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(96))


@pytest.mark.parametrize("form", ["tensor", "tuple"])
def test_predict_accepts_input_only(form):
    model = Classifier(MLP((1, 5), 3))
    x = torch.randn(4, 1, 5)

    assert model.predict_step(x if form == "tensor" else (x,)).shape == (4, 3)


def test_lengths_are_passed_to_the_network():
    config = {"name": "rnn", "input_shape": (6, 2), "classes": 3, "layout": "sequence", "dropout": 0.0}
    model = Classifier(config)
    x, lengths = torch.randn(4, 6, 2), torch.tensor([1, 6, 3, 2])

    torch.testing.assert_close(model(x, lengths), model.net(x, lengths))


class _Noting(Classifier):
    """Stores logged values instead of logging them."""

    def log(self, name: str, value: Any, **options: Any) -> None:
        self.__dict__.setdefault("noted", {})[name] = value, options

    def log_dict(self, dictionary: Any, **options: Any) -> None:
        for name, value in dictionary.items():
            self.log(name, value, **options)


def test_training_logs_the_epoch_loss_only():
    model = _Noting(MLP((1, 5), 3))
    loss = model.training_step((torch.randn(7, 1, 5), torch.zeros(7, dtype=torch.int64)))

    assert model.noted == {"train_loss": (loss, {"on_step": False, "on_epoch": True, "batch_size": 7})}


def test_steps_run_under_vmap():
    models = [_Noting(MLP((1, 5), 3, norm="batch")) for _ in range(3)]
    batch = (torch.randn(7, 1, 5), torch.arange(7) % 3)
    state = stack_module_state(models)
    skeleton = _Noting(MLP((1, 5), 3, norm="batch"))

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = skeleton

        def forward(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
            loss = self.model.training_step(batch)
            self.model.validation_step(batch)
            return loss, self.model.noted["val_acc"][0]

    def step(*rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        named = tuple({f"model.{path}": value for path, value in row.items()} for row in rows)
        return functional_call(Steps(), named, batch)

    losses, accuracies = vmap(step)(*state)

    for row, model in enumerate(models):
        torch.testing.assert_close(losses[row], model.training_step(batch))
        torch.testing.assert_close(accuracies[row], accuracy(model(batch[0]), batch[1]))


def test_accuracy():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]])

    assert accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75


@pytest.mark.parametrize("schedule", ["cosine", "step", "warmup_cosine"])
def test_schedule_changes_the_learning_rate_per_epoch(schedule, tmp_path):
    seen = []

    class Watch(lightning.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = _trainer(tmp_path, epochs=4)
    trainer.callbacks.append(Watch())
    trainer.fit(Classifier(MLP((1, 5), 3), lr=0.5, schedule=schedule), _loader(), _loader())

    assert seen == pytest.approx([0.5 * schedule_factor(schedule, epoch, 4) for epoch in range(4)])


def test_schedule_needs_max_epochs(tmp_path):
    model = Classifier(MLP((1, 5), 3), schedule="cosine")
    model.trainer = _trainer(tmp_path, epochs=-1)

    with pytest.raises(InputError, match="schedule=cosine needs a Trainer with max_epochs, got -1"):
        model.configure_optimizers()


def test_optimizer_follows_hyperparameters():
    model = Classifier(MLP((1, 5), 3), optimizer="sgd", lr=0.3, weight_decay=0.02, momentum=0.6, nesterov=True)
    optimizer = model.configure_optimizers()

    assert isinstance(optimizer, torch.optim.SGD)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["momentum"], group["nesterov"]) == (
        0.3,
        0.02,
        0.6,
        True,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adan"}, r"optimizer must be one of adamw, .*did you mean \"adam\""),
        ({"schedule": "cosin"}, r"schedule must be one of none, .*did you mean \"cosine\""),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, got -1.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs a momentum above 0"),
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers in \[0, 1\)"),
        ({"betas": (0.9,)}, r"betas must be two numbers in \[0, 1\)"),
    ],
)
def test_out_of_range_settings_are_rejected(options, message):
    with pytest.raises(InputError, match=message):
        Classifier(MLP((1, 5), 3), **options)
