"""pytorch-forecasting: the Temporal Fusion Transformer, whose loss is a metric object and whose steps keep outputs."""

from __future__ import annotations

import warnings
from typing import Any

from lightning import LightningDataModule
from pytorch_forecasting import TemporalFusionTransformer, TimeSeriesDataSet
from pytorch_forecasting.data.examples import generate_ar_data
from pytorch_forecasting.metrics import QuantileLoss


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
