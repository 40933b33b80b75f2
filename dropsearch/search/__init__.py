"""The search room: the space, the studies, what is trained next and what is confirmed.

`dropsearch.search` is also the function that users call. The room knows nothing of it: the call is handed to the
front, which is above.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This package, which can be called as `dropsearch.app.scripting.search`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        """The function, where `help` and `inspect.signature` look for it."""
        return import_module("dropsearch.app.scripting").search


sys.modules[__name__].__class__ = _Room
