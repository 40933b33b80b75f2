"""peft and Transformers: a tiny BERT whose LoRA adapters train alone on a frozen base, and one that trains whole."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, Dataset
from transformers import BertConfig, BertForSequenceClassification

from tests.ecosystem.searching import assert_alike, shares_of_zeros

EXAMPLES = Path(__file__).parents[2] / "examples"
FIXED = [
    "engine=vectorized",
    "engine.processes=1",
]  # sequential training may be measured to be faster, on a busy machine
WORDS, LENGTH, CLASSES = 40, 12, 3


sys.path.insert(0, str(EXAMPLES))
lora = importlib.import_module("lora")


def tiny_bert() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=WORDS, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=LENGTH,
    )  # fmt: skip
    config.num_labels = CLASSES
    return BertForSequenceClassification(config)


class Sentences(Dataset):
    """Made-up tokens; the class is the most frequent of the tokens 1, 2 and 3. Sentences are padded."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(1, WORDS, (count, LENGTH), generator=generator)
        self.tokens[:, 1::2] = torch.randint(1, CLASSES + 1, (count, LENGTH // 2), generator=generator)
        lengths = torch.randint(LENGTH // 2, LENGTH + 1, (count, 1), generator=generator)
        self.mask = (torch.arange(LENGTH) < lengths).long()
        self.tokens = self.tokens * self.mask
        counts = torch.stack([(self.tokens == word).sum(1) for word in range(1, CLASSES + 1)], 1)
        self.labels = counts.argmax(1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {
            "input_ids": self.tokens[index],
            "attention_mask": self.mask[index],
            "labels": self.labels[index],
        }


class SentencesData(LightningDataModule):
    def setup(self, stage: str) -> None:
        self.train, self.val = Sentences(96, 0), Sentences(48, 1)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, batch_size=16)


class Bert(LightningModule):
    """As in the examples of Lightning: the model's own loss, and AdamW over what trains."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = self.build()

    def build(self) -> Any:
        return tiny_bert()

    def forward(self, **batch: torch.Tensor) -> Any:
        return self.model(**batch)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self(**batch).loss
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        outputs = self(**batch)
        accuracy = (outputs.logits.argmax(-1) == batch["labels"]).float().mean()
        self.log_dict({"val_loss": outputs.loss, "val_acc": accuracy}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.hparams["lr"])


def in_layers(prefix: str, *parts: str) -> list[str]:
    return [f"{prefix}.encoder.layer.{layer}.{part}" for layer in range(2) for part in parts]


LORA = "model.base_model.model"
OF_LAYER = ("attention.self", "attention.output.dropout", "output.dropout")
OF_ADAPTERS = ("attention.self.query.lora_dropout.default", "attention.self.value.lora_dropout.default")
SITES = {
    "whole": ["model.bert.embeddings.dropout", *in_layers("model.bert", *OF_LAYER), "model.dropout"],
    "adapters": [
        f"{LORA}.bert.embeddings.dropout",
        *in_layers(f"{LORA}.bert", *OF_ADAPTERS, *OF_LAYER),
        f"{LORA}.dropout",
    ],
}
"""What the sources of Transformers and peft have; attention weights are a site of the layer that computes them."""


def test_a_whole_model_trains_vectorized_as_alone(tmp_path: Path) -> None:
    assert_alike(Bert, SentencesData, tmp_path, SITES["whole"])


def test_adapters_on_a_frozen_base_train_vectorized_as_alone(tmp_path: Path) -> None:
    make = lambda lr: lora.LoraClassifier(lr, size=16)  # noqa: E731
    assert_alike(make, lambda: lora.Tokens(96), tmp_path, SITES["adapters"])


def test_the_plan_says_what_the_frozen_base_saves() -> None:
    given = [
        "model._target_=lora.LoraClassifier",
        "data._target_=lora.Tokens",
        "arms=[dropout]",
        "trainer.max_epochs=1",
    ]
    command = [sys.executable, "-m", "dropsearch", *given, "task=plan", "study.n_trials=8", "tracking=none", *FIXED]
    found = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert re.search(r"^frozen +[\d.]+ MiB held once for all rows instead of [\d.]+ MiB", found.stdout, re.M), (
        found.stdout
    )


def test_rates() -> None:
    module = Bert().train()
    batch = next(iter(DataLoader(Sentences(64, 0), batch_size=64)))
    parts = [name for name, part in module.named_modules() if isinstance(part, torch.nn.Dropout)]
    for share in shares_of_zeros(module, lambda: module(**batch), parts, 0.3).values():
        assert share == pytest.approx(0.3, abs=0.02)
