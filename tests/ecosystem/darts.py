"""darts: networks for time series, whose batches are dataclasses with None."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from darts.models import NHiTSModel, TCNModel, TiDEModel, TransformerModel, TSMixerModel
from darts.utils.data.torch_datasets.utils import ModuleStage
from darts.utils.timeseries_generation import gaussian_timeseries, sine_timeseries

from tests.ecosystem.searching import assert_alike, shares_of_zeros

CHUNKS = {"input_chunk_length": 12, "output_chunk_length": 4, "batch_size": 16, "dropout": 0.1}
SIZES: dict[Any, dict[str, Any]] = {
    TCNModel: {"num_filters": 4, "num_layers": 2},
    TSMixerModel: {"hidden_size": 8, "ff_size": 8, "num_blocks": 1},
    TransformerModel: {
        "d_model": 8, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1, "dim_feedforward": 16,
    },
    NHiTSModel: {"num_stacks": 2, "num_blocks": 1, "num_layers": 1, "layer_widths": 16},
    TiDEModel: {"hidden_size": 8, "num_encoder_layers": 1, "num_decoder_layers": 1, "temporal_width_past": 4},
}  # fmt: skip


def series(length: int, start: int) -> Any:
    np.random.seed(start)
    made = sine_timeseries(length=length, value_frequency=0.05) + gaussian_timeseries(length=length, std=0.2)
    return made.astype(np.float32)


def setup(kind: Any, **changed: Any) -> dict[str, Any]:
    """Return the module and the data module that `fit` would hand to a Trainer."""
    forecaster = kind(**CHUNKS, **SIZES[kind], random_state=None, **changed)
    _, given = forecaster._setup_for_fit_from_dataset(series(100, 1), val_series=series(60, 2))
    return forecaster._setup_for_train(**given)


def module(kind: Any, lr: float = 1e-3, **changed: Any) -> Any:
    return setup(kind, optimizer_kwargs={"lr": lr}, **changed)["model"]


def data(kind: Any = TCNModel) -> Any:
    return setup(kind)["datamodule"]


def maker(kind: Any) -> Any:
    def make(lr: float = 1e-3) -> Any:
        return module(kind, lr)

    make.__name__, make.kind = kind.__name__, kind  # type: ignore[attr-defined]
    return make


tcn, tsmixer, transformer, nhits, tide = map(maker, (TCNModel, TSMixerModel, TransformerModel, NHiTSModel, TiDEModel))
tcn_data, tsmixer_data, transformer_data, nhits_data, tide_data = (
    partial(data, kind) for kind in (TCNModel, TSMixerModel, TransformerModel, NHiTSModel, TiDEModel)
)


OF_ATTENTION = ("self_attn", "dropout1", "dropout", "dropout2")
SITES: dict[Any, list[str]] = {
    tcn: [f"res_blocks.{block}.dropout{drop}" for block in range(2) for drop in (1, 2)],
    tsmixer: [
        "feature_mixing_hist.dropout1", "feature_mixing_hist.dropout2", "conditional_mixer.0.time_mixing.dropout",
        "conditional_mixer.0.feature_mixing.dropout1", "conditional_mixer.0.feature_mixing.dropout2",
    ],
    transformer: [
        "positional_encoding.dropout",
        *(f"transformer.encoder.layers.0.{part}" for part in OF_ATTENTION),
        *(f"transformer.decoder.layers.0.{part}" for part in (*OF_ATTENTION, "multihead_attn", "dropout3")),
    ],
    nhits: [f"stacks.{stack}.blocks.0.layers.2" for stack in range(2)],
    tide: ["encoders.0.dense.3", "decoders.0.dense.3", "temporal_decoder.dense.3"],
}  # fmt: skip
"""What the sources of darts' networks have."""


@pytest.mark.parametrize("make", [tcn, tsmixer, transformer, nhits, tide], ids=lambda make: make.__name__)
def test_trains_vectorized_as_alone(make: Any, tmp_path: Path) -> None:
    assert_alike(make, partial(data, make.kind), tmp_path, SITES[make])


@pytest.mark.parametrize("make", [tcn, nhits], ids=lambda make: make.__name__)
def test_rates(make: Any) -> None:
    found = setup(make.kind)
    module, batch = found["model"].train(), next(iter(found["datamodule"].train_dataloader()))
    given = batch.to_module_input(stage=ModuleStage.TRAIN)
    for share in shares_of_zeros(module, lambda: module(given), SITES[make], 0.3).values():
        assert share == pytest.approx(0.3, abs=0.05)
