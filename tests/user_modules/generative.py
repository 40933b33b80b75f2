"""Modules that draw random numbers in their steps: generative ones, and noise of many kinds."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.distributions import Bernoulli, Beta, Dirichlet, Normal, kl_divergence

from tests.user_modules.nets import LitNet


class VAE(LightningModule):
    """A variational autoencoder of 8 x 8 images (Kingma and Welling 2014), which samples in validation too."""

    def __init__(self, latent: int = 4, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(64, 16), nn.Tanh())
        self.drop = nn.Dropout(0.2)
        self.moments = nn.Linear(16, 2 * latent)
        self.decoder = nn.Sequential(nn.Linear(latent, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 64))

    def sampled(self, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
        return code, divergence

    def loss(self, x: Tensor) -> Tensor:
        mean, log_variance = self.moments(self.drop(self.encoder(x))).chunk(2, 1)
        code, divergence = self.sampled(mean, log_variance)
        return (F.mse_loss(self.decoder(code), x, reduction="none").sum(1) + divergence).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch[0])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch[0]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


class Distributed(VAE):
    """The same, by `torch.distributions`, which check their arguments."""

    def sampled(self, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        posterior = Normal(mean, torch.exp(0.5 * log_variance))
        prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
        return posterior.rsample(), kl_divergence(posterior, prior).sum(1)


class Epochal(VAE):
    """With a divergence that grows with the epochs, so that its rows are asked for their epoch."""

    def sampled(self, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        code, divergence = super().sampled(mean, log_variance)
        return code, divergence * min(1.0, 0.1 * (self.current_epoch + 1))


class Mixup(LitNet):
    """Mixes examples at a share that it draws, in an order that it draws (Zhang et al. 2018)."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        share = Beta(torch.tensor(0.4, dtype=x.dtype), torch.tensor(0.4, dtype=x.dtype)).sample()
        other = torch.randperm(len(x), device=x.device)
        logits = self(share * x + (1 - share) * x[other])
        return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[other])


class Proportions(LitNet):
    """Draws class probabilities and the share of a mixture, with gradients to what they are drawn by."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        logits = self(x)
        probabilities = Dirichlet(F.softplus(logits) + 0.5).rsample()
        share = Beta(F.softplus(logits[:, :1]) + 1, torch.ones_like(logits[:, :1])).rsample()
        mixed = share * probabilities + (1 - share) * logits.softmax(1)
        return F.nll_loss(torch.log(mixed + 1e-3), y)


class NoiseLayer(nn.Module):
    """Adds noise of its own in training."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        noise = torch.empty_like(x)
        noise.normal_(0, 0.1)  # fills the tensor in place
        return x + noise


class Noisy(LitNet):
    """Two noise layers, one of which is called twice, and draws of many kinds in the forward."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.noise = nn.ModuleList([NoiseLayer(), NoiseLayer()])
        self.slopes = nn.RReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.noise[1](self.noise[0](self.noise[0](x)))
        if self.training:
            x = x * Bernoulli(torch.full_like(x, 0.9)).sample() + 0.01 * torch.rand(x.shape[1:], dtype=x.dtype)
            kept = torch.multinomial(torch.ones(64), 48)
            x = x * torch.zeros(64, dtype=x.dtype).index_fill(0, kept, 1.0)
        return super().forward(self.slopes(x))


KEPT = torch.zeros(64)


class Filling(LitNet):
    """Fills a tensor of its file, which no row has for itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + KEPT.normal_())


class Counting(LitNet):
    """Draws Poisson numbers, whose count of random numbers nobody knows before."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.01 * torch.poisson(x.detach() + 1))


class OwnGenerator(LitNet):
    """Draws from a generator of its own."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn(64, generator=self.generator, dtype=x.dtype))


class Growing(LitNet):
    """Draws more from the second batch on."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        noise = torch.rand(1 + min(batch_idx, 1), dtype=batch[0].dtype).mean()
        return super().training_step(batch, batch_idx) * noise


class MixedInPython(LitNet):
    """Mixes by numbers of NumPy, cuts a patch at a place of Python's, and validates on a part that NumPy draws."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        share, column = np.random.beta(0.4, 0.4), random.randrange(50)
        other = torch.randperm(len(x))
        mixed = share * x + (1 - share) * x[other]
        mixed[:, column : column + 8] = 0
        logits = self(mixed)
        return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[other])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        chosen = torch.from_numpy(np.random.permutation(len(batch[0]))[:8])
        super().validation_step((batch[0][chosen], batch[1][chosen]), batch_idx)


class Routed(LitNet):
    """Sends each example to one of its experts, which drop in batches of different sizes; mixes some batches only."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.gate = nn.Linear(64, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(64, 12), nn.Dropout(0.2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training and torch.rand(1) < 0.5:
            x = 0.5 * (x + x[torch.randperm(len(x))])
        weights, hidden = self.gate(x).softmax(1), x.new_zeros(len(x), 12)
        for number, expert in enumerate(self.experts):
            (chosen,) = torch.where(weights.argmax(1) == number)
            hidden.index_add_(0, chosen, expert(x[chosen]) * weights[chosen, number, None])
        return self.last(self.drop(hidden))


class GAN(LightningModule):
    """A generator and a discriminator, each with an optimiser (Goodfellow et al. 2014)."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 64))
        self.critic = nn.Sequential(nn.Linear(64, 16), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch[0]
        one, other = self.optimizers()  # type: ignore[misc]
        made = self.generator(torch.randn(len(x), 4, dtype=x.dtype))
        loss = F.softplus(-self.critic(made)).mean()
        one.zero_grad()
        self.manual_backward(loss)
        one.step()
        criticised = F.softplus(self.critic(made.detach())).mean() + F.softplus(-self.critic(x)).mean()
        other.zero_grad()
        self.manual_backward(criticised)
        other.step()
        return criticised.detach()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        made = self.generator(torch.randn(len(batch[0]), 4, dtype=batch[0].dtype))
        self.log("val_loss", (made.mean(0) - batch[0].mean(0)).square().mean())

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=self.hparams["lr"]) for part in (self.generator, self.critic)]
