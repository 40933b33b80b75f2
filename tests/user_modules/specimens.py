"""Modules of kinds that public code has: each reads or keeps in its step what is not a parameter."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from tests.user_modules.nets import LitNet


class Scheduled(LitNet):
    """Weighs its loss by the learning rate, which a schedule changes in each step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        rate = self.rate()
        self.log("rate", rate, on_step=True)
        return super().training_step(batch, batch_idx) * (1 + 100 * rate)

    def rate(self) -> Any:
        return self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class OfSchedule(Scheduled):
    """Asks the schedule, from the second epoch on."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = 0

    def rate(self) -> Any:
        self.steps += 1
        return self.lr_schedulers().get_last_lr()[0] if self.steps > 5 else 0.0  # type: ignore[union-attr]


class Updating(Scheduled):
    """Sets its learning rate in its step, by a method of dictionaries."""

    def rate(self) -> Any:
        self.optimizers().param_groups[0].update(lr=0.1)  # type: ignore[union-attr]
        return 0.0


class Counting(Scheduled):
    """Counts the parameters that its optimizer has."""

    def rate(self) -> Any:
        return float(len(self.optimizers().param_groups[0].get("params", ())))  # type: ignore[union-attr]


class Warming(LitNet):
    """Sets and logs its learning rate in hooks."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = self.hparams["lr"] * min(1.0, (self.global_step + 1) / 5)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]


class Setting(Scheduled):
    """Sets its learning rate in its step."""

    def rate(self) -> Any:
        self.optimizers().param_groups[0]["lr"] = 0.1  # type: ignore[union-attr]
        return 0.0


class Functional(LitNet):
    """Penalizes the gradients of each example, by the transforms of `torch.func`."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weights, x = dict(self.first.named_parameters()), batch[0].flatten(1)

        def score(weights: Any, example: Tensor) -> Tensor:
            return functional_call(self.first, weights, example).pow(2).sum()

        found = vmap(grad(score), in_dims=(None, 0))(weights, x)
        return super().training_step(batch, batch_idx) + 0.01 * sum(each.pow(2).mean() for each in found.values())


class Calling(torch.optim.SGD):
    """Evaluates the loss itself, as Lightning lets optimizers do."""

    calls = 1

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        """Step after one or more evaluations."""
        with torch.enable_grad():
            losses = [closure() for _ in range(self.calls)]
        super().step()
        return losses[0]


class CallingTwice(Calling):
    """As methods do that look at the loss around the weights."""

    calls = 2


class LookingAhead(Calling):
    """As Nesterov's method does at the weights to come."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        """Step after an evaluation at other weights."""
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(0.9)
        return super().step(closure)


class Resetting(Calling):
    """As methods do that look for sharp minima."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        """Step after an evaluation of gradients that it removed."""
        self.zero_grad()
        return super().step(closure)


class Called(LitNet):
    """Steps by an optimizer that evaluates the loss."""

    optimizer: Any = Calling

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters(), lr=self.hparams["lr"])


class CalledTwice(Called):
    """Several times."""

    optimizer = CallingTwice


class CalledAhead(Called):
    """At other weights."""

    optimizer = LookingAhead


class CalledAfterReset(Called):
    """Without the gradients of before."""

    optimizer = Resetting


class ClassWeights(LitNet):
    """Holds weights of classes as a plain tensor, and a scale in a list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weights, self.scales = torch.linspace(0.5, 2, 10), [torch.ones(64)]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x.flatten(1) @ torch.diag(self.scales[0])), y, weight=self.weights)


class Projected(LitNet):
    """Looks at random features, whose projection is no buffer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.projection = torch.randn(64, 64).double() / 8

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cos(x.flatten(1) @ self.projection))


class Averages:
    """Moving averages of a module's weights, in an object of their own."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.shadow = {name: value.detach().double() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """Move them."""
        for name, value in module.named_parameters():
            self.shadow[name].mul_(0.9).add_(value, alpha=0.1)


class Taught(LitNet):
    """Learns from the averages of its weights."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.teacher = Averages(self)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.teacher.update(self)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, held = batch[0].flatten(1), self.teacher.shadow
        target = F.linear(F.linear(x, held["first.weight"]), held["last.weight"])
        return super().training_step(batch, batch_idx) + F.mse_loss(self(x), target)


class Initialized(LitNet):
    """Fills a buffer with the first batch, which works for a whole batch alone."""

    codes: Tensor
    is_filled: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("codes", torch.zeros(16, 64))
        self.register_buffer("is_filled", torch.tensor(False))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch[0].flatten(1)
        if not self.is_filled:
            self.codes.copy_(x[:16].detach())
            self.is_filled.fill_(True)
        return super().training_step(batch, batch_idx) + torch.cdist(x, self.codes).mean()


class Ring(LitNet):
    """Keeps its last losses in a dictionary and a set, and those of one step in a list that it empties first."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps, self.seen, self.numbers, self.here = 0, dict[int, Tensor](), set[int](), list[Tensor]()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.steps += 1
        self.seen[self.steps] = loss.detach()
        self.numbers.add(self.steps)
        if len(self.seen) > 3:
            del self.seen[min(self.seen)]
            self.numbers.discard(self.steps - 3)
        self.here.clear()
        self.here.append(loss)
        return sum(self.here) * torch.stack([*self.seen.values()]).mean() * len(self.numbers)


class Named(LitNet):
    """Has a layer whose name has a colon, with a number that a hook sets."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scaled = nn.ModuleDict({"user:item#1": nn.Identity()})

    def on_train_epoch_start(self) -> None:
        self.scaled["user:item#1"].scale = 1.0 + self.current_epoch  # type: ignore[assignment]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scale: Any = self.scaled["user:item#1"].scale
        return super().training_step(batch, batch_idx) * scale


class Tree(LitNet):
    """Holds a dictionary and a list that hold themselves."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tree, self.nodes = dict[str, Any](weight=2.0), list[Any]([0.5])
        self.tree["root"] = self.tree
        self.nodes.append(self.nodes)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * self.tree["weight"] * self.nodes[0]


class Histories(list[float]):
    """A list with a method and a constructor of its own."""

    def __init__(self, first: float, *, most: int) -> None:
        super().__init__([first])
        self.most = most

    def push(self, value: float) -> None:
        """Append a value."""
        self.append(value)


class Remembering(LitNet):
    """Fills a list of a class of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.history = Histories(1.0, most=3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.history.push(1.0)
        return super().training_step(batch, batch_idx) / min(len(self.history), self.history.most)


class Shape:
    """What trials share, with caches."""

    def __init__(self) -> None:
        self.sizes: dict[int, float] = {}

    @functools.cached_property
    def one(self) -> float:
        """A number that is computed once."""
        return 1.0

    def size(self, of: int) -> float:
        """Return a number that is computed once for each size."""
        if of not in self.sizes:
            self.sizes[of] = 1.0 / of
        return self.sizes[of]


HISTORY: list[int] = []
LAZY: list[float] | None = None


class Caching(LitNet):
    """Reads caches of what trials share: an object, the class, the file. Hooks alone use a list and an iterator."""

    warned = False
    shape = Shape()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shared, self.history, self.weights = type(self).shape, HISTORY, iter(range(100))

    def next_weight(self) -> None:
        self.scale = 1.0 + next(self.weights)

    def on_train_epoch_start(self) -> None:
        self.history.append(self.current_epoch)
        self.next_weight()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        global LAZY
        if LAZY is None:
            LAZY = [2.0]
        if not Caching.warned:
            Caching.warned = True
        weight = self.shared.one * self.shared.size(len(batch[0])) * LAZY[0] * self.scale
        return super().training_step(batch, batch_idx) * weight


class Sparse(LitNet):
    """Holds a sparse buffer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("neighbours", torch.eye(64).to_sparse())


class Scaled(LitNet):
    """Scales an embedding within its forward."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(10, 4, max_norm=1.0)


TABLE: dict[str, Any] = {"weights": torch.linspace(0.5, 2, 10)}


class Together(ClassWeights):
    """Holds a dictionary of all modules, in which it counts."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = TABLE

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.table["steps"] = self.table.get("steps", 0) + 1
        return super().training_step(batch, batch_idx)


EACH = (
    Scheduled, OfSchedule, Warming, Functional, Called, Projected, Taught, Initialized, Ring, Named, Tree, Remembering,
    Caching,
)  # fmt: skip
