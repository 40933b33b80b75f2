"""Modules around models of Hugging Face's transformers, tiny and untrained, and the data that they take.

Nothing here knows dropsearch, and nothing is downloaded: each model is built from a configuration.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)


def bert(attention: str) -> BertForSequenceClassification:
    """A classifier of sentences; `attention` is "eager" or "sdpa"."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.3}
    words = {"vocab_size": 30, "max_position_embeddings": 12, "num_labels": 3}
    return BertForSequenceClassification(BertConfig(**sizes, **rates, **words, attn_implementation=attention))


def gpt2(attention: str) -> GPT2LMHeadModel:
    """A language model whose output layer is its embedding, and whose linear layers are its own (`Conv1D`)."""
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 12, "vocab_size": 30}
    rates = {"embd_pdrop": 0.1, "attn_pdrop": 0.2, "resid_pdrop": 0.3}
    others = {"bos_token_id": None, "eos_token_id": None, "loss_type": "ForCausalLM"}
    return GPT2LMHeadModel(GPT2Config(**sizes, **rates, **others, attn_implementation=attention))


def vit(attention: str) -> ViTForImageClassification:
    """A classifier of images `[batch, 1, 8, 8]`."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2}
    images = {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_labels": 10}
    return ViTForImageClassification(ViTConfig(**sizes, **rates, **images, attn_implementation=attention))


def convnext() -> ConvNextForImageClassification:
    """A classifier of images with stochastic depth and no dropout."""
    sizes = {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2, "patch_size": 2, "image_size": 8}
    return ConvNextForImageClassification(
        ConvNextConfig(**sizes, num_channels=1, num_labels=10, drop_path_rate=0.25, layer_scale_init_value=0.0)
    )


def sentences(count: int = 4, seed: int = 1) -> dict[str, Tensor]:
    """Return sentences of two to six words, padded, with a label each."""
    draw = torch.Generator().manual_seed(seed)
    mask = (torch.arange(6) < torch.randint(2, 7, (count, 1), generator=draw)).long()
    words = torch.randint(1, 30, (count, 6), generator=draw) * mask
    return {"input_ids": words, "attention_mask": mask, "labels": words[:, 0] % 3}


def text(count: int = 4) -> dict[str, Tensor]:
    """Return words that are their own labels."""
    words = sentences(count)["input_ids"]
    return {"input_ids": words, "labels": words}


def images(count: int = 4) -> dict[str, Tensor]:
    """Return images with a label each."""
    pixels = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return {"pixel_values": pixels, "labels": pixels.flatten(1)[:, :10].argmax(1)}


class Classifier(LightningModule):
    """What trains any of them: the model itself computes the loss."""

    names = ("input_ids", "attention_mask", "labels")

    def __init__(self, lr: float = 1e-3, attention: str = "sdpa") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = self.build(attention)

    def build(self, attention: str) -> Any:
        return bert(attention)

    def forward(self, batch: Any) -> Any:
        return self.model(**batch)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self(batch).loss
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self(batch).loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


class Unpacking(Classifier):
    """Takes a tuple of tensors."""

    def forward(self, batch: Any) -> Any:
        return self.model(**dict(zip(self.names, batch, strict=True)))


class Language(Unpacking):
    """Predicts the next word."""

    names = ("input_ids", "labels")

    def build(self, attention: str) -> Any:
        return gpt2(attention)


class Images(Unpacking):
    """Classifies images."""

    names = ("pixel_values", "labels")

    def build(self, attention: str) -> Any:
        return vit(attention)


class Deep(Images):
    """With stochastic depth, and a dropout of its own."""

    def build(self, attention: str) -> Any:
        model = convnext()
        model.classifier = torch.nn.Sequential(torch.nn.Dropout(0.3), model.classifier)
        return model


class Sentences(LightningDataModule):
    """Batches of dictionaries, as tokenizers and collators give them."""

    def examples(self) -> dict[str, Tensor]:
        return sentences(60)

    def loader(self, part: slice, shuffle: bool) -> Any:
        named = self.examples()
        examples = TensorDataset(*(tensor[part] for tensor in named.values()))
        return DataLoader(examples, 10, shuffle, collate_fn=self.collator(list(named)))

    def collator(self, names: list[str]) -> Any:
        return lambda examples: dict(zip(names, map(torch.stack, zip(*examples, strict=True)), strict=True))

    def train_dataloader(self) -> Any:
        return self.loader(slice(40), True)

    def val_dataloader(self) -> Any:
        return self.loader(slice(40, None), False)


class Tuples(Sentences):
    """The same as tuples."""

    def collator(self, names: list[str]) -> Any:
        return None


class Texts(Tuples):
    """Sentences without labels."""

    def examples(self) -> dict[str, Tensor]:
        return text(60)


class Pictures(Tuples):
    """Images."""

    def examples(self) -> dict[str, Tensor]:
        return images(60)
