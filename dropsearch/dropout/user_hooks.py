"""A user's forward hooks, whose computations are ignored when the kind of a site is inferred."""

from __future__ import annotations

import functools
import sys
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

from dropsearch._compat.torch_modules import forward_hooks_of, pre_hooks_of


class UserHooks:
    """Detects whether a forward hook of a model is running.

    Create it before other hooks are registered on the model.
    """

    def __init__(self, model: nn.Module) -> None:
        parts = (part for part in model.modules() if not isinstance(part, torch.jit.ScriptModule))
        hooks = [hook for part in parts for hook in (*forward_hooks_of(part).values(), *pre_hooks_of(part).values())]
        self._codes = {code for hook in hooks if (code := _code_of(hook)) is not None}

    def running(self) -> bool:
        """Return whether the caller is running inside a hook."""
        if not self._codes:
            return False
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code in self._codes:
                return True
            frame = frame.f_back
        return False


def _code_of(hook: Any) -> CodeType | None:
    while isinstance(hook, functools.partial):
        hook = hook.func
    function = getattr(hook, "__func__", hook)
    code = getattr(function, "__code__", None) or getattr(type(hook).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None
