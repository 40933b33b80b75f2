"""Randomness that the control cannot reach, and messages about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.torch_modules import has_compiled_call
from dropsearch.core.records import Site

DRAWS = frozenset({"bernoulli", "bernoulli_", "native_dropout"})
"""Names of functions that may draw a dropout mask."""

UNIFORM = frozenset({"rand", "rand_like", "uniform_"})
"""Names of functions whose numbers form a dropout mask if compared with a rate."""


_COMPARES = ("lt", "le", "gt", "ge", "less", "greater", "floor")
_KEEPS_NUMBERS = ("add", "radd", "to", "view", "reshape", "unsqueeze", "expand", "item")


def draw(function: Any) -> str:
    """Return the name of a function that may draw a dropout mask, or an empty string."""
    name = getattr(function, "__name__", "")
    return name if name in DRAWS or name in UNIFORM else ""


class UniformDraws:
    """Uniform random numbers of a forward: those compared with a rate form a mask, whose site `add` receives."""

    def __init__(self, add: Callable[[Site], None]) -> None:
        self._add = add
        self._drawn: list[tuple[Any, Site]] = []

    def note(self, numbers: Any, site: Site) -> None:
        """Record drawn numbers, with the site that they become if they are compared."""
        self._drawn.append((numbers, site))

    def see(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        """Follow a call that may compare recorded numbers, or compute others from them."""
        for drawn, site in [each for each in self._drawn if any(arg is each[0] for arg in args)]:
            name = getattr(func, "__name__", "").strip("_")
            if name in _COMPARES:
                if not differs_by_example([arg for arg in args if arg is not drawn]):
                    self._add(site)
            elif name in _KEEPS_NUMBERS and result is not drawn:
                self.note(result, site)


def is_sampling(function: str, given: list[Any]) -> bool:
    """Return whether a function that draws zeros and ones does so with probabilities that differ between examples."""
    probabilities = {"bernoulli": given, "bernoulli_": given[1:]}
    return differs_by_example(probabilities.get(function, []))


def differs_by_example(given: list[Any]) -> bool:
    """Return whether there are probabilities that differ between examples, `[batch, ...]`.

    A draw with such probabilities samples a distribution, such as the binary latent of an autoencoder.
    """
    tensors = [each.detach() for each in given if isinstance(each, Tensor) and each.dim() > 1 and len(each) > 1]
    return any(each.is_floating_point() and bool((each != each[:1]).any()) for each in tensors)


def draw_reason(name: str, owner: str) -> str:
    """Return why random numbers drawn in a forward cannot be controlled, and what to do."""
    return (
        f"the forward draws random numbers ({name}) at an unknown rate; if they drop activations, "
        f'use F.dropout instead, or register the rate: dropsearch.register_op({owner}, rate="ATTRIBUTE")'
    )


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module or a submodule is compiled by ``torch.compile``, whose code hides all calls."""
    named = any(name.rpartition(".")[2] == "_orig_mod" for name, _ in module.named_modules())
    return named or any(has_compiled_call(part) for part in module.modules())


ONE_LAYER = "it has no effect: it drops between layers, but there is only one; add nn.Dropout after it"
SCRIPTED = "its code is compiled by TorchScript, which hides calls; pass the module before scripting"
UNMET = "this pass did not call it: it is in an untaken branch, or unused; use a batch that reaches it"
STAYS_IN_EVAL = (
    "it does not drop in training: its module stays in eval mode (frozen), or the call has training=False;  "
    "call .train() on that module, or leave the site out"
)
NO_DRAWS = (
    "its code drew no random numbers in this pass: its module stays in eval mode (frozen), or they are not "
    "PyTorch's; call .train() on that module, or leave the site out"
)
AT_ZERO = "it does not drop at its rate of 0: set {attribute} above 0 to search it"
