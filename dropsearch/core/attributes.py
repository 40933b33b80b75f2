"""What an object holds by name."""

from __future__ import annotations

from typing import Any


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes that an object holds: those that its classes declare in `__slots__`, and its `__dict__`."""
    names = (vars(kind).get("__slots__", ()) for kind in type(value).__mro__)
    declared = [name for each in names for name in ((each,) if isinstance(each, str) else each)]
    return {
        **{name: getattr(value, name) for name in declared if hasattr(value, name)},
        **getattr(value, "__dict__", {}),
    }
