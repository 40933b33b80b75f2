"""pytorch-tabular: dict batches of a data module that is set up, and sites that exist above a rate of 0 only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pytorch_tabular import TabularModel
from pytorch_tabular.config import DataConfig, OptimizerConfig, TrainerConfig
from pytorch_tabular.models import CategoryEmbeddingModelConfig, FTTransformerConfig, NodeConfig
from sklearn.datasets import load_wine

from tests.ecosystem.searching import assert_alike, shares_of_zeros

CONFIGS: dict[str, Any] = {
    "embedding": lambda: CategoryEmbeddingModelConfig(
        task="classification", layers="16-8", dropout=0.1, embedding_dropout=0.1, use_batch_norm=False
    ),
    "transformer": lambda: FTTransformerConfig(
        task="classification", input_embed_dim=8, num_heads=2, num_attn_blocks=1
    ),
    "node": lambda: NodeConfig(task="classification", num_layers=2, num_trees=8, depth=3, input_dropout=0.1),
}


def tabular(config: Any) -> tuple[TabularModel, Any]:
    """Return the package's front and its data module, set up."""
    wine = load_wine(as_frame=True)
    table: pd.DataFrame = wine.frame.sample(frac=1.0, random_state=0).reset_index(drop=True)
    table["hue"] = (table["hue"] > 1).map({True: "red", False: "brown"})
    inputs = [name for name in wine.feature_names if name != "hue"]
    front = TabularModel(
        data_config=DataConfig(target=["target"], continuous_cols=inputs, categorical_cols=["hue"]),
        model_config=config,
        optimizer_config=OptimizerConfig(),
        trainer_config=TrainerConfig(
            batch_size=16, max_epochs=2, load_best=False, checkpoints=None, progress_bar="none"
        ),
        verbose=False,
    )
    return front, front.prepare_dataloader(train=table[:120], validation=table[120:], seed=0)


def maker(name: str) -> Any:
    front, data = tabular(CONFIGS[name]())

    def make() -> Any:
        return front.prepare_model(data)

    make.__name__ = name
    return make


def embedding_data() -> dict[str, Any]:
    data = tabular(CONFIGS["embedding"]())[1]
    return {"train_dataloaders": data.train_dataloader(), "val_dataloaders": data.val_dataloader()}


embedding = maker("embedding")
transformer, transformer_data = maker("transformer"), embedding_data
node, node_data = maker("node"), embedding_data
MONITOR = "valid_loss"


BLOCK = "_backbone.transformer_blocks.mha_block_0"
SITES: dict[Any, list[str]] = {
    embedding: ["_embedding_layer.embd_dropout", "_backbone.linear_layers.2", "_backbone.linear_layers.5"],
    transformer: [
        f"{BLOCK}.{part}"
        for part in ("mha.dropout", "attn_add_norm.dropout", "pos_wise_ff.ffn.dropout", "ff_add_norm.dropout")
    ],
    node: ["_backbone.dense_block"],
}
"""What the sources of the package's networks have."""


@pytest.mark.parametrize("make", [embedding, transformer, node], ids=lambda make: make.__name__)
def test_trains_vectorized_as_alone(make: Any, tmp_path: Path) -> None:
    assert_alike(make, embedding_data, tmp_path, SITES[make], monitor=MONITOR)


def test_rates() -> None:
    module, batch = embedding().train(), next(iter(embedding_data()["train_dataloaders"]))
    for share in shares_of_zeros(module, lambda: module(batch), SITES[embedding], 0.3).values():
        assert share == pytest.approx(0.3, abs=0.03)
