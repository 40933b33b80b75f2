"""A LightningModule that trains a classification network, built-in networks by name, and functions that build both."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from dropsearch.core.errors import InputError, close_match
from dropsearch.models.cnn import CNN
from dropsearch.models.mlp import MLP
from dropsearch.models.network import Network, Rates
from dropsearch.models.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    OptimizerName,
    Schedule,
    build_optimizer,
    schedule_factor,
)
from dropsearch.models.rnn import RNN
from dropsearch.models.transformer import Transformer

NETS: Mapping[str, type[Network]] = {net.name: net for net in (MLP, CNN, RNN, Transformer)}


def build_net(config: Mapping[str, Any]) -> Network:
    """Build a network from its name and constructor arguments, as returned by `Network.config`.

    Raises:
        InputError: The name or an option is unknown, an option is missing, or a value is out of range.
    """
    options = dict(config)
    name = options.pop("name", None)
    if name not in NETS:
        raise InputError(f"model.name must be one of {', '.join(NETS)}, got {name!r}{close_match(str(name), NETS)}")
    _check_options(name, options)
    try:
        return NETS[name](**options)
    except (ValueError, TypeError) as error:
        raise InputError(f"model {name}: {error}") from error


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(NETS[name]).parameters
    for key in options:
        if key not in parameters:
            hint = close_match(key, parameters)
            raise InputError(f"model.{key} is not an option of {name}{hint}; options: {', '.join(parameters)}")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in options]
    if missing:
        raise InputError(f"model {name} needs {', '.join(missing)}")


class Classifier(lightning.LightningModule):
    """Trains a network with cross-entropy loss and logs its accuracy.

    A batch is ``(*inputs, target)``: the network maps the inputs to logits `[batch, classes]`; the target is int64
    `[batch]`. For a network of `NETS` the hyperparameters contain its configuration including the rates, so
    ``Classifier.load_from_checkpoint(path)`` restores everything. Pass any other network again:
    ``Classifier.load_from_checkpoint(path, net=MyNet())``.

    Args:
        net: A network, or its configuration (see `build_net`).
        optimizer: adamw, adam or sgd.
        lr: Learning rate of the first epoch; with warm-up, the highest learning rate.
        weight_decay: Weight decay of weights; biases and norms are not decayed.
        momentum: Momentum of sgd.
        nesterov: Whether sgd uses Nesterov momentum.
        betas: Betas of adam and adamw.
        schedule: Learning rate schedule over the Trainer's ``max_epochs``: none, cosine, step or warmup_cosine (see
            `schedule_factor`).

    Raises:
        InputError: A name is unknown or a value is out of range.
    """

    steps_keep_no_state = True
    """Steps keep nothing and log means over examples only, so they may run aside, on other batches, without a copy."""

    def __init__(
        self,
        net: nn.Module | Mapping[str, Any],
        *,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        nesterov: bool = False,
        betas: Sequence[float] = (0.9, 0.999),
        schedule: Schedule = "none",
    ) -> None:
        super().__init__()
        betas = [float(beta) for beta in betas]
        self.save_hyperparameters(ignore=["net"])
        self._check()
        self.net = build_net(net) if isinstance(net, Mapping) else net
        self._store_net_config(self.hparams)

    def _check(self) -> None:
        hparams = self.hparams
        for key, names in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if hparams[key] not in names:
                hint = close_match(str(hparams[key]), names)
                raise InputError(f"{key} must be one of {', '.join(names)}, got {hparams[key]!r}{hint}")
        momentum, betas = hparams["momentum"], hparams["betas"]
        _require(hparams["lr"] > 0, "lr must be above 0", hparams["lr"])
        _require(hparams["weight_decay"] >= 0, "weight_decay must be at least 0", hparams["weight_decay"])
        _require(0 <= momentum < 1, "momentum must be in [0, 1)", momentum)
        _require(momentum > 0 or not hparams["nesterov"], "nesterov needs a momentum above 0", momentum)
        are_valid = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
        _require(are_valid, "betas must be two numbers in [0, 1)", betas)

    def _store_net_config(self, hparams: Any) -> None:
        # Built-in networks only: `config` of a user's network may have another meaning.
        if type(self.net) in NETS.values():
            hparams["net"] = self.net.config

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the network's current rates in the checkpoint, which may differ from the initial ones."""
        self._store_net_config(checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {}))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits `[batch, classes]`."""
        return self.net(*inputs)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int = 0) -> Tensor:
        """Log ``train_loss`` (dropout on, mean over the epoch) and return the loss of the batch in nats."""
        *inputs, target = batch
        loss = F.cross_entropy(self(*inputs), target)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=target.shape[0])
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int = 0) -> None:
        """Log ``val_loss`` in nats and ``val_acc`` in [0, 1]."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Sequence[Tensor], batch_idx: int = 0) -> None:
        """Log ``test_loss`` in nats and ``test_acc`` in [0, 1]."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Sequence[Tensor], part: str) -> None:
        *inputs, target = batch
        logits = self(*inputs)
        scores = {f"{part}_loss": F.cross_entropy(logits, target), f"{part}_acc": accuracy(logits, target)}
        self.log_dict(scores, on_step=False, on_epoch=True, batch_size=target.shape[0])

    def example_scores(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy in nats and whether the class is right, of each example, `[batch]` each."""
        *inputs, target = batch
        logits = self(*inputs)
        return F.cross_entropy(logits, target, reduction="none"), logits.argmax(-1) == target

    def predict_step(self, batch: Tensor | Sequence[Tensor], batch_idx: int = 0) -> Tensor:
        """Return probabilities `[batch, classes]`; the batch is as in training, or a single input tensor."""
        inputs = (batch,) if isinstance(batch, Tensor) else batch[:-1] or batch
        return self(*inputs).softmax(-1)

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with its schedule if there is one.

        Raises:
            InputError: There is a schedule, but the Trainer has no ``max_epochs``.
        """
        options = dict(self.hparams)
        options.pop("net", None)
        name, schedule = options.pop("optimizer"), options.pop("schedule")
        optimizer = build_optimizer(self, name, **options)
        if schedule == "none":
            return optimizer
        epochs = self.trainer.max_epochs or 0
        if epochs < 1:
            raise InputError(f"schedule={schedule} needs a Trainer with max_epochs, got {self.trainer.max_epochs}")
        scheduler = LambdaLR(optimizer, lambda epoch: schedule_factor(schedule, epoch, epochs))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the share of correctly classified examples, a scalar tensor in [0, 1]."""
    return (logits.argmax(-1) == target).to(torch.float32).mean()


def _require(is_valid: bool, rule: str, value: object) -> None:
    if not is_valid:
        raise InputError(f"{rule}, got {value}")


_NET = "net."
"""Where `Classifier` keeps its network: sites are named from the LightningModule, rates are given to the network."""


def _around(net: type[Network]) -> Callable[..., Classifier]:
    """Return a function that builds a `Classifier` around a network, with the network's arguments in its signature."""

    def build(
        *,
        dropout: Rates = 0.0,
        optimizer: Mapping[str, Any] | None = None,
        lr: float,
        weight_decay: float,
        **options: Any,
    ) -> Classifier:
        rates = dropout
        if isinstance(dropout, Mapping):
            rates = {site.removeprefix(_NET): rate for site, rate in dropout.items()}
        built = build_net({"name": net.name, **options, "dropout": rates})
        if not torch.cuda.is_available():
            # A CPU's pooling and convolutions then go through memory in order; these nets never `view` an activation.
            built = built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        chosen = dict(optimizer or {})
        if "name" in chosen:
            chosen["optimizer"] = chosen.pop("name")
        return Classifier(built, **chosen, lr=lr, weight_decay=weight_decay)

    by_data = ("input_shape", "classes", "layout")
    own = inspect.signature(build, eval_str=True).parameters
    parameters = [
        parameter.replace(
            kind=parameter.KEYWORD_ONLY, default=parameter.empty if name in by_data else parameter.default
        )
        for name, parameter in inspect.signature(net, eval_str=True).parameters.items()
        if name not in own
    ]
    parameters += [parameter for parameter in own.values() if parameter.kind is not parameter.VAR_KEYWORD]
    build.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    build.__name__ = build.__qualname__ = f"{net.name}_classifier"
    build.__doc__ = f"""Build a `Classifier` around a `{net.__name__}`.

    The arguments are those of `{net.__name__}`, of which the data give `input_shape`, `classes` and `layout`, and those
    of the optimizer: its name, options and schedule as a mapping, `lr` and `weight_decay`.
    """
    return build


mlp_classifier = _around(MLP)
cnn_classifier = _around(CNN)
rnn_classifier = _around(RNN)
transformer_classifier = _around(Transformer)
