"""neuralforecast: networks for time series; a step draws windows of its series, and hooks seed all generators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from neuralforecast.models import NHITS, PatchTST
from neuralforecast.tsdataset import TimeSeriesDataModule, TimeSeriesDataset
from neuralforecast.utils import AirPassengersPanel

from tests.ecosystem.searching import assert_alike

WINDOWS = {"h": 12, "input_size": 24, "max_steps": 100, "batch_size": 2, "windows_batch_size": 16}


def made(kind: Any, **given: Any) -> Any:
    module = kind(**WINDOWS, **given)
    module.val_size = 24  # as its `fit` sets it
    return module


def nhits(learning_rate: float = 1e-3) -> Any:
    return made(NHITS, learning_rate=learning_rate, dropout_prob_theta=0.1, mlp_units=3 * [[16, 16]])


def patchtst(learning_rate: float = 1e-3) -> Any:
    sizes = {"hidden_size": 8, "n_heads": 2, "encoder_layers": 1, "linear_hidden_size": 16, "patch_len": 8, "stride": 4}
    rates = dict.fromkeys(("dropout", "fc_dropout", "head_dropout", "attn_dropout"), 0.1)
    return made(PatchTST, learning_rate=learning_rate, **sizes, **rates)


def data() -> Any:
    series, *_ = TimeSeriesDataset.from_df(AirPassengersPanel)
    return TimeSeriesDataModule(series, batch_size=2, valid_batch_size=2, drop_last=False, shuffle_train=True)


LAYER = "model.backbone.encoder.layers.0"
SITES = {
    nhits: [f"blocks.{block}.layers.{layer}" for block in range(3) for layer in (3, 6, 9)],
    patchtst: [
        "model.backbone.dropout", "model.head.dropout",
        *(f"{LAYER}.{part}" for part in ("self_attn.sdp_attn.attn_dropout", "self_attn.to_out.1", "ff.2")),
        f"{LAYER}.dropout_attn", f"{LAYER}.dropout_ffn",
    ],
}  # fmt: skip
"""What the sources have."""


@pytest.mark.parametrize("make", [nhits, patchtst], ids=lambda make: make.__name__)
def test_trains_vectorized_as_alone(make: Any, tmp_path: Path) -> None:
    assert_alike(make, data, tmp_path, SITES[make], monitor="ptl/val_loss")
