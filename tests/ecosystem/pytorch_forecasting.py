"""pytorch-forecasting: the Temporal Fusion Transformer, whose loss is a metric object and whose steps keep outputs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningDataModule
from pytorch_forecasting import TemporalFusionTransformer, TimeSeriesDataSet
from pytorch_forecasting.data.examples import generate_ar_data
from pytorch_forecasting.metrics import QuantileLoss

from tests.ecosystem.searching import assert_alike, shares_of_zeros


def sets() -> tuple[TimeSeriesDataSet, TimeSeriesDataSet]:
    table = generate_ar_data(seasonality=10.0, timesteps=60, n_series=4, seed=0)
    train = TimeSeriesDataSet(
        table[table.time_idx < 40],
        time_idx="time_idx",
        target="value",
        group_ids=["series"],
        max_encoder_length=8,
        max_prediction_length=4,
        time_varying_unknown_reals=["value"],
        time_varying_known_reals=["time_idx"],
    )
    return train, TimeSeriesDataSet.from_dataset(train, table, min_prediction_idx=40)


class Series(LightningDataModule):
    def setup(self, stage: str) -> None:
        self.train, self.val = sets()

    def train_dataloader(self) -> Any:
        return self.train.to_dataloader(train=True, batch_size=16)

    def val_dataloader(self) -> Any:
        return self.val.to_dataloader(train=False, batch_size=16)


TRAIN = sets()[0]


def tft(learning_rate: float = 1e-2) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TemporalFusionTransformer.from_dataset(
            TRAIN, learning_rate=learning_rate, hidden_size=8, attention_head_size=2, hidden_continuous_size=4,
            dropout=0.1, loss=QuantileLoss(), log_interval=-1,
        )  # fmt: skip


OF_GATES = ".gate_norm.glu.dropout"
VARIABLES = ("encoder_variable_selection", "decoder_variable_selection")
SITES = [
    *(f"{name}{OF_GATES}" for name in ("static_context_variable_selection", "static_context_initial_hidden_lstm")),
    *(f"{name}{OF_GATES}" for name in ("static_context_initial_cell_lstm", "static_context_enrichment")),
    *(f"{name}{OF_GATES}" for name in ("static_enrichment", "pos_wise_ff")),
    *(f"{name}.single_variable_grns.time_idx{OF_GATES}" for name in VARIABLES),
    f"encoder_variable_selection.single_variable_grns.value{OF_GATES}",
    f"encoder_variable_selection.flattened_grn{OF_GATES}",
    "post_lstm_gate_encoder.dropout",
    "multihead_attn.dropout",
    "post_attn_gate_norm.glu.dropout",
]
"""What the source of the Temporal Fusion Transformer has for one known and one unknown variable."""


def test_trains_vectorized_as_alone(tmp_path: Path) -> None:
    assert_alike(tft, Series, tmp_path, SITES)


def test_rates() -> None:
    module, (inputs, _) = tft().train(), next(iter(TRAIN.to_dataloader(train=True, batch_size=64)))
    parts = [site for site in SITES if site != "multihead_attn.dropout"]
    for share in shares_of_zeros(module, lambda: module(inputs), parts, 0.3).values():
        assert share == pytest.approx(0.3, abs=0.05)
