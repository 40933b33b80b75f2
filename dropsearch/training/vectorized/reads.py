"""Steps of several rows that read values of tensors, or call functions without a batching rule for each row."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Mapping
from types import FrameType, FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dropsearch._compat.python_calls import can_be_shown
from dropsearch._compat.row_values import base_of, current_level, expanded, is_of_row, of_rows, outside
from dropsearch.core.batches import mapped, tensors
from dropsearch.training.vectorized.by_row import RowArray, RowsDifferError, by_row, each_row, together
from dropsearch.training.vectorized.row_gaps import closed, in_gap, takes_rows

READS = frozenset(
    {
        Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.tolist, Tensor.is_nonzero,
        Tensor.equal, Tensor.allclose, torch.equal, torch.allclose, torch.is_nonzero,
    }
)  # fmt: skip
"""Operations that convert tensors to numbers or booleans, on which a program may branch."""

VALUES = frozenset({Tensor.item, Tensor.numpy, Tensor.__array__})
"""Operations that convert tensors to numbers or arrays, most of which are only logged or kept."""

WITHOUT_RULE = frozenset(
    {
        "_pack_padded_sequence", "_pad_packed_sequence", "_unique2", "argwhere", "bincount", "ctc_loss",
        "embedding_bag", "histc", "masked_select", "nonzero", "repeat_interleave", "unique", "unique_consecutive",
        "unique_dim",
    }
)  # fmt: skip
"""Names of operations without a batching rule; shapes of some results depend on values."""

FACTORIES = frozenset(
    {
        torch.zeros, torch.ones, torch.empty, torch.full, torch.eye, torch.zeros_like, torch.ones_like,
        torch.empty_like, torch.full_like, torch.tensor, Tensor.new, Tensor.new_zeros, Tensor.new_ones,
        Tensor.new_empty, Tensor.new_full, Tensor.clone, torch.clone,
    }
)  # fmt: skip
"""Operations that create tensors to fill in place; each row gets its own."""


class RowReads(TorchFunctionMode):
    """Handles reads of tensors that differ between rows.

    `Tensor.item` returns the tensor itself, since most such numbers are only logged, and `Tensor.numpy` a placeholder.
    A read that decides a branch returns the value if all rows agree; otherwise it raises `RowsDifferError` with the
    groups of rows that agree. A row by itself reads all values as they are.
    Tensors created to be filled in place are batched, and boolean masks fill each row's. Operations without a batching
    rule, and functions of torchmetrics, are called separately for each row; rows whose results have different shapes
    take separate steps.

    Args:
        follows: Follow also what is computed from created tensors alone, to see whether the step fills it.
    """

    def __init__(self, *, follows: bool = False) -> None:
        super().__init__()
        self._follows = follows
        self.used = False
        """Whether a value that differs between rows was read, or filled a tensor that the step created."""
        self._made: set[int] = set()
        """Memory addresses of created tensors."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if current_level() > 1:  # within transforms of the step itself
            return func(*args, **(kwargs or {}))
        if func in VALUES and (values := of_rows(args[0].detach())) is not None:
            self.used = True
            return self._value(func, args, values)
        if in_gap(func, args, kwargs or {}) and takes_rows(func, args, kwargs or {}):
            self.used = True
            return closed(func, args, kwargs or {}, self._number)
        if func in READS and (values := each_row(func, *_detached((args, kwargs or {})))) is not None:
            self.used = True
            if any(repr(value) != repr(values[0]) for value in values):
                raise RowsDifferError(values)
            return values[0]
        if has_no_rule(func, args):
            return self._by_row(func, args, kwargs or {})
        if is_of_lists(func) and any(map(is_of_row, tensors([args, kwargs]))):
            self.used = True
            return _each_of_lists(func, args, kwargs or {})
        if func is Tensor.__setitem__ and is_indexed(args) and is_of_row(args[0]):
            self.used = True
            each_row(func, args, kwargs or {})  # a row is a view, so it is filled in place
            return None
        if not self.used and self._made and args and changes_in_place(func) and _address(args[0]) in self._made:
            self.used = any(map(is_of_row, tensors([args[1:], kwargs])))
        if func in AUGMENTED and not is_of_row(args[0]) and _may_be_of_row(args[1]) and is_augmented(sys._getframe(1)):
            self.used = True
            return AUGMENTED[func](*args)  # Python binds the name to the result
        try:
            result = func(*args, **(kwargs or {}))
            if func in FACTORIES:
                return self._created(result)
            if self._follows and self._made and isinstance(result, Tensor) and self._is_made((args, kwargs)):
                self._made.add(_address(result))
            return result
        except RuntimeError as error:  # raised by `vmap` for operations without a batching rule
            if changes_in_place(func) or isinstance(error, torch.OutOfMemoryError) or "random" in str(error):
                raise
            return self._by_row(func, args, kwargs or {})

    def _value(self, func: Any, args: tuple[Any, ...], values: Tensor) -> Any:
        if len(values) == 1:
            with outside():
                return func(values[0], *args[1:])
        if func is Tensor.__array__:
            raise RowsDifferError(range(len(values)))
        return RowArray(args[0]) if func is Tensor.numpy else args[0].detach().reshape(())

    def _number(self, tensor: Tensor) -> int:
        return self.__torch_function__(Tensor.__index__, (), (tensor,))

    def _is_made(self, given: Any) -> bool:
        """Return whether all that differs between rows among arguments was created by the step."""
        found = [_address(each) for each in tensors(list(given)) if is_of_row(each)]
        return bool(found) and self._made.issuperset(found)

    def _created(self, tensor: Tensor) -> Tensor:
        result = expanded(tensor)
        if result is not tensor:
            self._made.add(_address(result))
        return result

    def _by_row(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        values = each_row(func, args, kwargs)
        if values is None:
            return func(*args, **kwargs)
        self.used = True
        return together(values, (args, kwargs))

    def python_call(
        self, function: FunctionType, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a function of torchmetrics for each row; a dropout function runs as it is."""
        return by_row(run, args, kwargs) if is_of_metrics(function) else run(*args, **kwargs)


def _address(tensor: Tensor) -> int:
    return base_of(tensor).untyped_storage().data_ptr()


def _detached(given: tuple[tuple[Any, ...], Mapping[str, Any]]) -> Any:
    return mapped((given[0], dict(given[1])), lambda tensor: tensor.detach())


def changes_in_place(func: Any) -> bool:
    """Return whether a torch operation changes its first argument."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def is_augmented(frame: FrameType) -> bool:
    """Return whether code runs an operator that assigns its result, such as `+=`."""
    code = frame.f_code.co_code
    return code[frame.f_lasti] == dis.opmap["BINARY_OP"] and code[frame.f_lasti + 1] >= _FIRST_AUGMENTED


_FIRST_AUGMENTED = 13
"""Argument of Python's instruction for `+=`; those of the others are larger."""
AUGMENTED: Mapping[Any, Callable[..., Tensor]] = {
    Tensor.add_: Tensor.add, Tensor.sub_: Tensor.sub, Tensor.mul_: Tensor.mul, Tensor.div_: Tensor.div,
    Tensor.logical_or_: Tensor.logical_or, Tensor.__ior__: Tensor.__or__, Tensor.__iand__: Tensor.__and__,
}  # fmt: skip
"""What operators such as `+=` call, and the same without a change in place."""


def _may_be_of_row(value: Any) -> bool:
    return isinstance(value, Tensor) and is_of_row(value)


def has_mask(args: tuple[Any, ...]) -> bool:
    """Return whether the arguments of `__getitem__` or `__setitem__` index by a boolean mask."""
    return any(index.dtype is torch.bool for index in tensors(list(args[1:2])))


def is_indexed(args: tuple[Any, ...]) -> bool:
    """Return whether the arguments of `__setitem__` index by tensors or lists, whose values `vmap` may misplace."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    return has_mask(args) or any(isinstance(each, list) or (isinstance(each, Tensor) and each.dim()) for each in index)


def has_no_rule(func: Any, args: tuple[Any, ...]) -> bool:
    """Return whether a torch operation has no batching rule."""
    if func is Tensor.__getitem__:
        return has_mask(args)
    is_packed = getattr(func, "__name__", "") in ("lstm", "gru", "rnn_tanh", "rnn_relu") and isinstance(args[1], Tensor)
    return getattr(func, "__name__", "") in WITHOUT_RULE or (is_packed and not isinstance(args[3], bool))


def is_of_lists(func: Any) -> bool:
    """Return whether a torch operation computes with lists of tensors at once, which has no batching rule."""
    name = getattr(func, "__name__", "")
    return name.startswith(_OF_LISTS) and hasattr(Tensor, name.removeprefix(_OF_LISTS))


_OF_LISTS = "_foreach_"


def _each_of_lists(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the results of an operation on lists, computed for one tensor of each list after the other."""
    function = getattr(Tensor, func.__name__.removeprefix(_OF_LISTS))
    at = lambda value, index: value[index] if isinstance(value, list | tuple) else value  # noqa: E731
    found = [
        function(*(at(value, index) for value in args), **{name: at(value, index) for name, value in kwargs.items()})
        for index in range(len(args[0]))
    ]
    return None if changes_in_place(func) else tuple(found)


class NotedReads(TorchFunctionMode):
    """Records the reads of a step of one trial."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False
        """Whether a tensor was converted to a number or a boolean."""
        self.functions: set[FunctionType] = set()
        """Called functions of torchmetrics."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        is_read = func in READS or func in VALUES or in_gap(func, args, kwargs or {})
        self.seen |= is_read or has_no_rule(func, args) or changes_in_place(func) or is_of_lists(func)
        return func(*args, **(kwargs or {}))

    def python_call(
        self, function: FunctionType, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a function of torchmetrics, but not its inner calls."""
        if not is_of_metrics(function):
            return run(*args, **kwargs)
        self.functions.add(function)
        seen, result = self.seen, run(*args, **kwargs)
        self.seen = seen
        return result


def is_of_metrics(function: FunctionType) -> bool:
    """Return whether a function is one of torchmetrics."""
    return function.__module__.partition(".")[0] == "torchmetrics"


def metric_functions() -> list[FunctionType]:
    """Return the functions of torchmetrics, if it is imported."""
    package = sys.modules.get("torchmetrics.functional")
    return [each for each in vars(package).values() if can_be_shown(each)] if package else []
