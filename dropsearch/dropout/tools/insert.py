"""Insertion of dropout into a module by removable hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropsearch._compat.torch_modules import DropoutBase, forward_hooks_of
from dropsearch.core.errors import InputError, close_match
from dropsearch.dropout.rates import checked_rate

AFTER_ACTIVATION = "after_activation"

# Without those for gates and outputs (Sigmoid, Softmax etc.), whose results are not hidden activations.
_ACTIVATIONS = (
    nn.CELU, nn.ELU, nn.GELU, nn.GLU, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish, nn.PReLU, nn.ReLU, nn.RReLU,
    nn.SELU, nn.SiLU, nn.Softplus, nn.Softsign, nn.Tanh, nn.Threshold,
)  # fmt: skip

Where = str | type[nn.Module] | Sequence[str | type[nn.Module]]


class InsertedDropout:
    """A forward hook that applies dropout to a module's output in training mode.

    It is not a module, so ``state_dict`` does not change; it is copied and pickled with its module. For a tuple, as
    from ``nn.LSTM``, it applies to the first element.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, module: nn.Module, _: Any, output: Any) -> Any:
        """Return the output with the hook's rate applied to it."""
        if isinstance(output, PackedSequence):
            return output._replace(data=self._drop(module, output.data))
        if isinstance(output, tuple) and output:
            return (self(module, _, output[0]), *output[1:])
        return self._drop(module, output) if isinstance(output, Tensor) else output

    def _drop(self, module: nn.Module, x: Tensor) -> Tensor:
        # Alpha dropout preserves mean and variance after a SELU (Klambauer et al. 2017).
        drop = F.alpha_dropout if isinstance(module, nn.SELU) else F.dropout
        return drop(x, self.rate, module.training)


@dataclass(frozen=True, repr=False)
class Insertion:
    """The result of `insert_dropout`."""

    names: tuple[str, ...]
    """Names of the new sites, which are those of the modules before them."""
    rate: float
    left_out: tuple[str, ...] = ()
    """Activations that were already followed by dropout."""

    def __repr__(self) -> str:
        """Return a one-line description."""
        kept = f"; already followed by dropout: {', '.join(self.left_out)}" if self.left_out else ""
        return f"dropout at rate {self.rate:g} after {', '.join(self.names) or 'nothing'}{kept}"


def insert_dropout(module: nn.Module, where: Where = AFTER_ACTIVATION, rate: float = 0.0) -> Insertion:
    """Insert dropout after submodules by forward hooks; `remove_dropout` removes them.

    The new sites have the names of the submodules, in `dropout_sites` and in a search. ``state_dict`` and the source of
    the module do not change, nor does its output at rate 0.

    Args:
        module: Any module.
        where: ``"after_activation"``: after each activation module without a following dropout (except those for gates
            and outputs, such as Sigmoid and Softmax). Or a name, a pattern of names such as ``"encoder.*.relu"``, a
            type of submodule, or a list of these.
        rate: The probability of dropping an activation, in [0, 1].

    Returns:
        The names of the new sites, and the activations that were left out.

    Raises:
        InputError: `where` matches nothing, dropout was already inserted there, or `rate` is out of range.
    """
    return put_behind(module, where, checked_rate(rate, "rate"))


def put_behind(module: nn.Module, where: Where, rate: float, key: str = "where") -> Insertion:
    """Insert dropout like `insert_dropout`; messages refer to `where` by `key`."""
    if not where or not isinstance(where, str | type | Sequence):
        raise InputError(
            f"{key} must be {AFTER_ACTIVATION}, a name, pattern or type of submodules, or a list, got {where!r}"
        )
    chosen = _after_activations(module, key) if where == AFTER_ACTIVATION else _fitting(module, where, key)
    followed = _followed_by_dropout(module) if where == AFTER_ACTIVATION else set()
    names = {name: part for name, part in chosen.items() if name not in followed}
    twice = [name for name, part in names.items() if inserted_dropout(part)]
    if twice:
        raise InputError(
            f"insert_dropout must not insert dropout twice, got a second one after {', '.join(twice)}: "
            "remove_dropout(module) removes all, set_rates changes rates"
        )
    for part in names.values():
        part.register_forward_hook(InsertedDropout(rate))
    return Insertion(tuple(names), rate, tuple(sorted(followed & chosen.keys())))


def remove_dropout(module: nn.Module) -> tuple[str, ...]:
    """Remove all dropout that `insert_dropout` inserted; return the names of its sites."""
    removed = []
    for name, part in module.named_modules():
        for key in inserted_dropout(part):
            del forward_hooks_of(part)[key]
            removed.append(name)
    return tuple(removed)


def inserted_dropout(part: nn.Module) -> dict[int, InsertedDropout]:
    """Return the inserted dropout of a module, by the key of its hook."""
    if isinstance(part, torch.jit.ScriptModule):
        return {}
    return {key: hook for key, hook in forward_hooks_of(part).items() if isinstance(hook, InsertedDropout)}


def _can_carry(part: nn.Module) -> bool:
    # Attention uses its output layer's weights without calling it; TorchScript supports no hooks.
    return not isinstance(part, nn.modules.linear.NonDynamicallyQuantizableLinear | torch.jit.ScriptModule)


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, part) for name, part in module.named_modules() if name and _can_carry(part))


def _after_activations(module: nn.Module, key: str) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {name: part for name, part in _parts(module) if isinstance(part, _ACTIVATIONS)}
    if not found:
        raise InputError(
            f"{key}={AFTER_ACTIVATION} needs activation modules, but {type(module).__name__} has none: "
            f"name the submodules to insert after, {_examples(module, key)}"
        )
    return found


def suggested_where(module: nn.Module) -> str:
    """Return a place to insert dropout: ``after_activation`` or the name of a layer; empty without layers."""
    if any(isinstance(part, _ACTIVATIONS) for _, part in _parts(module)):
        return AFTER_ACTIVATION
    return next(_layers(module), "")


def _layers(module: nn.Module) -> Iterator[str]:
    """Yield the names of submodules with their own weights, which excludes losses."""
    return (name for name, part in _parts(module) if next(part.parameters(recurse=False), None) is not None)


def _examples(module: nn.Module, key: str) -> str:
    name = next(_layers(module), "")
    if not name:
        return "but it has no submodules"
    kind = type(module.get_submodule(name))
    known = getattr(nn, kind.__name__, None) is kind
    return f'for example {key}=["{name}"]' + (f" or {key}=[torch.nn.{kind.__name__}]" if known else "")


def _followed_by_dropout(module: nn.Module) -> set[str]:
    """Return the names of modules directly before a dropout in an `nn.Sequential`."""
    return {
        f"{name}.{first}" if name else first
        for name, part in module.named_modules()
        if isinstance(part, nn.Sequential)
        for (first, _), second in zip(part.named_children(), [*part][1:], strict=False)
        if isinstance(second, DropoutBase)
    }


def _fitting(module: nn.Module, where: Where, key: str) -> dict[str, nn.Module]:
    wanted = [where] if isinstance(where, str | type) else list(where)
    parts = dict(_parts(module))
    first_names = {id(part): name for name, part in parts.items()}
    aliases = dict(module.named_modules(remove_duplicate=False))
    found: set[str] = set()
    for each in wanted:
        if isinstance(each, type):
            fits = {name for name, part in parts.items() if isinstance(part, each)}
        else:
            named = (part for name, part in aliases.items() if fnmatchcase(name, each))
            fits = {first_names[id(part)] for part in named if id(part) in first_names}
        if not fits:
            known = [AFTER_ACTIVATION, *parts, *(f"torch.nn.{type(part).__name__}" for part in parts.values())]
            shown = each.__name__ if isinstance(each, type) else f'"{each}"{close_match(each, known)}'
            raise InputError(
                f"{key} must name submodules of {type(module).__name__} or types of called submodules, got {shown}: "
                f"its submodules are {', '.join(parts) or 'none'}"
            )
        found |= fits
    return {name: part for name, part in parts.items() if name in found}
