"""Random numbers that a step draws from torch, as a function of the trial's seed, the place and the step.

A call such as ``torch.randn_like(x)`` is parsed into a `Draw`: the number of 32-bit numbers that it needs, and its
result for given numbers. The numbers come from the generator of the masks, so a trial draws the same numbers
sequentially and in any row, on a CPU and on CUDA.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch.dropout.distributions import LEVELS, TRIES, below, exponential, gamma, normal, open_unit, unit, whole


@dataclass(frozen=True)
class Draw:
    """A call that draws random numbers."""

    name: str
    shape: torch.Size
    """Shape of the required numbers."""
    device: torch.device
    made: Callable[[Tensor], Any]
    """Maps numbers in [0, 2^32), float64 of this shape, to the result of the call."""
    into: Tensor | None = None
    """The tensor to fill in place."""
    obstacle: str = ""
    """Why its numbers cannot be set, so that it draws from PyTorch's generator; empty if they can."""


def read_draw(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Draw | None:
    """Parse a call of a function; return None if it does not draw."""
    name = getattr(function, "__name__", "")
    if name in _OTHERS:
        return _unkeyed(name, f"torch draws by {name}")
    reader = _READERS.get(name)
    if reader is None:
        return None
    options = dict(kwargs)
    if options.pop("generator", None) is not None:
        return _unkeyed(name, f"{name} draws from its own generator")
    if options.pop("out", None) is not None:
        return _unkeyed(name, f"{name} draws into out=")
    first = [options.pop(each) for each in _FIRST if each in options and not args]
    try:
        draw = reader(name, *first, *args, **options)
    except TypeError:
        return _unkeyed(name, f"{name} is called with arguments that are not known here")
    # The functions of torch.nn.init fill parameters without recording it.
    is_init = getattr(function, "__module__", "") == nn.init.__name__
    return dataclasses.replace(draw, made=torch.no_grad()(draw.made)) if is_init else draw


def can_draw(name: str) -> bool:
    """Return whether a function of PyTorch with this name draws random numbers."""
    return name in _READERS or name in _OTHERS


def _unkeyed(name: str, obstacle: str) -> Draw:
    return Draw(name, torch.Size(), torch.device("cpu"), lambda _: None, obstacle=obstacle)


def _value(option: Any) -> Any:
    return option.detach() if isinstance(option, Tensor) else option


def _fresh(of: Callable[[Tensor, torch.dtype], Tensor], name: str, *size: Any, **options: Any) -> Draw:
    like = torch.empty(*size, **options)

    def made(numbers: Tensor) -> Tensor:
        drawn = of(numbers, like.dtype).to(like.dtype)
        return drawn.requires_grad_() if like.requires_grad else drawn

    return Draw(name, like.shape, like.device, made)


def _created(name: str, like: Tensor, values: Callable[[Tensor], Tensor]) -> Draw:
    return Draw(name, like.shape, like.device, lambda numbers: values(numbers).to(like.dtype))


def _like(of: Callable[[Tensor, torch.dtype], Tensor], name: str, x: Tensor, **options: Any) -> Draw:
    like = torch.empty_like(x, **options)
    return _created(name, like, lambda numbers: of(numbers, like.dtype))


def _filled(name: str, x: Tensor, values: Callable[[Tensor], Tensor]) -> Draw:
    return Draw(name, x.shape, x.device, lambda numbers: x.copy_(values(numbers).to(x.dtype)), into=x)


def _fills(values: Callable[..., Tensor]) -> Callable[..., Draw]:
    """Return the parser of a call that fills a tensor with values, a function of the numbers and the call's options."""

    def read(name: str, x: Tensor, *args: Any, **options: Any) -> Draw:
        return _filled(name, x, lambda numbers: values(numbers, *args, **options))

    return read


def _uniform_(name: str, x: Tensor, low: float = 0.0, high: float = 1.0, **more: Any) -> Draw:
    low, high = more.get("from", more.get("a", low)), more.get("to", more.get("b", high))
    return _filled(name, x, lambda numbers: low + (high - low) * unit(numbers, x.dtype))


def _bernoulli(name: str, x: Tensor, p: Any = None) -> Draw:
    return _created(name, x, lambda numbers: below(numbers, x if p is None else p))


def _normal_call(name: str, mean: Any, std: Any = 1.0, size: Any = None, **options: Any) -> Draw:
    if size is not None:
        like = torch.empty(size, **options)
        return _created(name, like, lambda numbers: mean + std * normal(numbers))
    mean, std = _value(mean), _value(std)
    like = mean if isinstance(mean, Tensor) else std
    shape = torch.broadcast_shapes(*(x.shape for x in (mean, std) if isinstance(x, Tensor)))
    return Draw(name, shape, like.device, lambda numbers: (mean + std * normal(numbers).to(like.dtype)).to(like.dtype))


def _randint(name: str, *args: Any, low: int = 0, high: Any = None, size: Any = None, **options: Any) -> Draw:
    given = list(args)
    size = given.pop() if size is None else size
    high = int(given.pop() if high is None else high)
    low = given.pop() if given else low
    if high - low > LEVELS:
        return _unkeyed(name, f"{name} draws from more than 2^32 numbers")
    like = torch.empty(size, **{"dtype": torch.int64, **options})
    return _created(name, like, lambda numbers: whole(numbers, low, high))


def _randint_like(name: str, x: Tensor, *args: int, low: int = 0, high: int | None = None, **options: Any) -> Draw:
    return _randint(name, *args, x.shape, low=low, high=high, **{"dtype": x.dtype, "device": x.device, **options})


def _random_(name: str, x: Tensor, *args: int, **more: int) -> Draw:
    given = [*args, *(more[key] for key in ("from", "to") if key in more)]
    if not given or given[-1] is None or given[-1] - (given[0] if len(given) > 1 else 0) > LEVELS:
        return _unkeyed(name, f"{name} draws from more than 2^32 numbers")
    low, high = (0, *given)[-2:]
    return _filled(name, x, lambda numbers: whole(numbers, low, high))


def _randperm(name: str, n: int, **options: Any) -> Draw:
    like = torch.empty(n, **{"dtype": torch.int64, **options})
    return _created(name, like, lambda numbers: torch.argsort(numbers, stable=True))


def _multinomial(name: str, weights: Tensor, num_samples: int, replacement: bool = False) -> Draw:
    weights = weights.detach().double()
    if not replacement:  # the categories with the smallest exponential times
        clocks = lambda numbers: exponential(numbers) / weights  # noqa: E731
        ring = lambda numbers: torch.topk(clocks(numbers), num_samples, dim=-1, largest=False).indices  # noqa: E731
        return Draw(name, weights.shape, weights.device, ring)
    upper = weights.cumsum(-1)

    def of_cumulated(numbers: Tensor) -> Tensor:
        at = numbers / LEVELS * upper[..., -1:]
        passed = (at[..., None] >= upper[..., None, :]).sum(-1)
        return passed.clamp(max=weights.shape[-1] - 1)

    return Draw(name, torch.Size((*weights.shape[:-1], num_samples)), weights.device, of_cumulated)


def _gumbel_softmax(
    name: str, logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Draw:
    def made(numbers: Tensor) -> Tensor:
        noise = -torch.log(exponential(numbers)).to(logits.dtype)
        soft = ((logits + noise) / tau).softmax(dim)
        if not hard:
            return soft
        at = soft.max(dim, keepdim=True)[1]
        return torch.zeros_like(soft).scatter(dim, at, 1.0) - soft.detach() + soft

    return Draw(name, logits.shape, logits.device, made)


def _rrelu(
    name: str, x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Draw:
    def made(numbers: Tensor) -> Tensor:
        middle = (lower + upper) / 2  # evaluation mode is deterministic
        slope = lower + (upper - lower) * unit(numbers, x.dtype).to(x.dtype) if training else middle
        result = torch.where(x >= 0, x, x * slope)
        return x.copy_(result) if inplace else result

    return Draw(name, x.shape if training else torch.Size((0,)), x.device, made)


def _gamma(name: str, alpha: Tensor) -> Draw:
    shape = torch.Size((*alpha.shape, 2 * TRIES + 1))
    return Draw(name, shape, alpha.device, lambda numbers: gamma(alpha, numbers).to(alpha.dtype))


def _dirichlet(name: str, alpha: Tensor) -> Draw:
    def made(numbers: Tensor) -> Tensor:
        values = gamma(alpha.detach(), numbers)
        return (values / values.sum(-1, keepdim=True)).to(alpha.dtype)

    return Draw(name, torch.Size((*alpha.shape, 2 * TRIES + 1)), alpha.device, made)


_normals = lambda numbers, _: normal(numbers)  # noqa: E731

_READERS: Mapping[str, Callable[..., Draw]] = {
    "rand": partial(_fresh, unit),
    "randn": partial(_fresh, _normals),
    "rand_like": partial(_like, unit),
    "randn_like": partial(_like, _normals),
    "normal": _normal_call,
    "normal_": _fills(lambda numbers, mean=0.0, std=1.0: mean + std * normal(numbers)),
    "uniform_": _uniform_,
    "log_normal_": _fills(lambda numbers, mean=1.0, std=2.0: torch.exp(mean + std * normal(numbers))),
    "exponential_": _fills(lambda numbers, lambd=1.0: exponential(numbers) / lambd),
    "cauchy_": _fills(
        lambda numbers, median=0.0, sigma=1.0: median + sigma * torch.tan(math.pi * (open_unit(numbers) - 0.5))
    ),
    "geometric_": _fills(lambda numbers, p: torch.ceil(torch.log(open_unit(numbers)) / math.log1p(-p)).clamp(min=1)),
    "bernoulli": _bernoulli,
    "bernoulli_": _fills(lambda numbers, p=0.5: below(numbers, p)),
    "randint": _randint,
    "randint_like": _randint_like,
    "random_": _random_,
    "randperm": _randperm,
    "multinomial": _multinomial,
    "gumbel_softmax": _gumbel_softmax,
    "rrelu": _rrelu,
    "rrelu_": partial(_rrelu, inplace=True),
    "_standard_gamma": _gamma,
    "_sample_dirichlet": _dirichlet,
}
"""Parser of a call, by the name of its function."""

FACTORIES = frozenset(
    {"empty", "empty_like", "new", "new_empty", "zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"}
)
"""Names of functions that create a tensor which later code may fill in place."""

_FIRST = ("input", "tensor", "self", "logits")
"""Keyword names of the first tensor argument, which `torch.nn.init` always passes by name."""

_OTHERS = frozenset(
    {
        "kaiming_uniform_", "poisson", "binomial", "trunc_normal_", "fractional_max_pool2d", "fractional_max_pool3d",
        "fractional_max_pool2d_with_indices", "fractional_max_pool3d_with_indices",
    }
)  # fmt: skip
"""Functions whose result cannot be computed from a known number of random numbers."""
