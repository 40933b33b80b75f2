"""Modules of both packages by the name of Lightning, as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.trainers import trainer_class
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue, make_source

SETTINGS = TrainerSettings(max_epochs=2, accelerator="cpu")


def written_for(lightning: Any) -> type:
    class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Net


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_module_trains_the_same_sequentially_and_vectorized(package: str, tmp_path: Any):
    net = written_for(pytest.importorskip(package))

    def make(spec: TrialSpec) -> Any:
        torch.manual_seed(spec.seed)
        return net()

    specs = [TrialSpec("dropout", n, 5 + n, {"net.3": 0.2 + 0.3 * n}, lr=0.1, weight_decay=0.0) for n in range(2)]
    curves = []
    source: Any = make_source("mlp")
    for engine in (
        SequentialEngine(make, source, SETTINGS, lambda spec: tmp_path / f"alone{spec.number}.ckpt"),
        VectorizedEngine(make, source, SETTINGS, 2, lambda spec: tmp_path / f"array{spec.number}.ckpt"),
    ):
        feed = Queue(list(specs))
        engine.run(feed)
        assert {result.state for result in feed.results.values()} == {"COMPLETE"}, [
            r.reason for r in feed.results.values()
        ]
        curves.append([[p.val_loss for p in feed.results[n].curve] for n in range(2)])
    assert engine.description.startswith("vectorized, 2 trials"), engine.description
    for one, other in zip(*curves, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    loaded = net.load_from_checkpoint(tmp_path / "array1.ckpt")  # type: ignore[attr-defined]
    assert isinstance(loaded, net)


def test_what_is_no_lightning_module_is_refused():
    with pytest.raises(
        InputError, match="model must be a LightningModule of lightning or pytorch_lightning, got Linear"
    ):
        trainer_class(nn.Linear(2, 2))
