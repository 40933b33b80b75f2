"""Searching the dropout of LoRA adapters: many trials on one frozen transformer. Needs peft and transformers.

The base is the same in every trial and does not train, so that all trials of a process share it. From this folder::

    python -m dropsearch model._target_=lora.LoraClassifier data._target_=lora.Tokens 'arms=[none,dropout]' task=plan

says in its line `frozen` how much memory and time that saves; without `task=plan` the same command searches. Here the
base is a small BERT with random weights, so that nothing is fetched; yours comes from `from_pretrained`.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from peft import LoraConfig, TaskType, get_peft_model  # type: ignore[import-not-found]
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import BertConfig, BertForSequenceClassification

WORDS, LENGTH, CLASSES = 200, 16, 3


class Sentences(Dataset):
    """Made-up tokens; the class is the most frequent of the tokens 1, 2 and 3."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(1, WORDS, (count, LENGTH), generator=generator)
        self.tokens[:, 1::2] = torch.randint(1, CLASSES + 1, (count, LENGTH // 2), generator=generator)
        self.labels = torch.stack([(self.tokens == word).sum(1) for word in range(1, CLASSES + 1)], 1).argmax(1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.labels[index]}


class Tokens(LightningDataModule):
    """A training and a validation set of such sentences."""

    def __init__(self, examples: int = 512) -> None:
        super().__init__()
        self.train, self.val = Sentences(examples, 0), Sentences(examples // 2, 1)

    def train_dataloader(self) -> Any:
        """Return the training batches."""
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self) -> Any:
        """Return the validation batches."""
        return DataLoader(self.val, batch_size=64)


def base(size: int, layers: int) -> BertForSequenceClassification:
    """Return the base, with the same weights each time, as from a file."""
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * size,
        max_position_embeddings=LENGTH,
    )
    config.num_labels = CLASSES
    model, generator = BertForSequenceClassification(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (each for each in model.parameters() if each.dim() > 1):
            weight.normal_(0, 0.05, generator=generator)
    return model


class LoraClassifier(LightningModule):
    """LoRA adapters on the queries and values of a frozen BERT, and a classifier that trains."""

    def __init__(self, lr: float = 1e-3, size: int = 128, layers: int = 2, lora_dropout: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        adapters = LoraConfig(
            task_type=TaskType.SEQ_CLS, r=4, lora_dropout=lora_dropout, target_modules=["query", "value"]
        )
        self.model = get_peft_model(base(size, layers), adapters)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        return self.model(**batch).loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy."""
        outputs = self.model(**batch)
        accuracy = (outputs.logits.argmax(-1) == batch["labels"]).float().mean()
        self.log_dict({"val_loss": outputs.loss, "val_acc": accuracy})

    def configure_optimizers(self) -> Any:
        """Return AdamW over what trains."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.hparams["lr"])
