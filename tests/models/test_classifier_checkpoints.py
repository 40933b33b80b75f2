"""Loading classifiers from checkpoints."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dropsearch.models import Classifier, build_net
from dropsearch.models.classifier import NETS

pytestmark = [
    # A data loader of tensors in memory needs no worker processes, whatever Lightning thinks.
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    # Lightning 2.6 walks batches by a function that PyTorch 2.13 has renamed.
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]

X = torch.randn(8, 2, 6, generator=torch.Generator().manual_seed(0))


def _save(model: Classifier, path: Path) -> Path:
    """Train for one epoch and write the checkpoint of a plain Trainer."""
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=path.parent,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    loader = DataLoader(TensorDataset(X, torch.arange(8) % 3), batch_size=4)
    trainer.fit(model, loader, loader)
    trainer.save_checkpoint(path)
    return path


def _net(name: str, **options) -> nn.Module:
    return build_net({"name": name, "input_shape": [2, 6], "classes": 3, **options})


class Foreign(nn.Module):
    """A user network with an unrelated `config` attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"name": "mlp"}
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.parametrize("name", NETS)
def test_weights_rates_and_settings_are_restored(name, tmp_path):
    net = _net(name, norm="batch", dropout=0.3)
    site = list(net.rates)[-1]
    net.set_rates({site: 0.45})
    model = Classifier(net, optimizer="sgd", lr=0.01, momentum=0.5, betas=(0.7, 0.8), schedule="step")
    path = _save(model, tmp_path / "best.ckpt")

    loaded = Classifier.load_from_checkpoint(path, weights_only=True)

    assert loaded.hparams == model.hparams
    assert loaded.net.config == net.config
    assert loaded.net.rates[site] == 0.45
    torch.testing.assert_close(loaded.eval()(X), model.eval()(X), rtol=0, atol=0)


def test_rates_set_later_are_restored(tmp_path):
    model = Classifier(_net("mlp", dropout=0.3))
    model.net.set_rates({"hidden2.dropout": 0.6})

    path = _save(model, tmp_path / "best.ckpt")
    assert Classifier.load_from_checkpoint(path, weights_only=True).net.rates["hidden2.dropout"] == 0.6


def test_user_network_is_passed_again(tmp_path):
    model = Classifier(Foreign(), lr=0.01)
    path = _save(model, tmp_path / "own.ckpt")

    loaded = Classifier.load_from_checkpoint(path, net=Foreign())
    assert loaded.hparams["lr"] == 0.01
    torch.testing.assert_close(loaded.eval()(X), model.eval()(X), rtol=0, atol=0)
