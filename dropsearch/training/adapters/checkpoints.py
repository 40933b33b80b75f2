"""Lightning checkpoints that contain only tensors and plain values."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from dropsearch.core.atomic_io import atomic_write
from dropsearch.core.errors import RunError
from dropsearch.core.printable import masked_if_whole, masked_values
from dropsearch.core.user_errors import message_of
from dropsearch.training.logged_steps import wrapped_hook


def save_checkpoint(trainer: Any, path: Path) -> str:
    """Write a Lightning checkpoint with weights only, atomically, and return its sha256.

    Hyperparameters that `torch.load(weights_only=True)` rejects (a network, a partial optimizer) are left out, so that
    the file loads without running code. So are passwords and tokens: what stands under a key such as `api_key`, has
    their format, or is one as a whole. Pass to `load_from_checkpoint` what is left out and has no default.

    Raises:
        RunError: The file could not be written.
    """
    try:
        with atomic_write(path) as temporary:
            with wrapped_hook(trainer.lightning_module, "on_save_checkpoint", _then_plain):
                trainer.save_checkpoint(temporary, weights_only=True)
            with temporary.open("rb") as written:
                return hashlib.file_digest(written, "sha256").hexdigest()
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
        raise RunError(
            f"{path} could not be written ({message_of(error)}): check the free space, then repeat the command, "
            "which continues from the stored trials"
        ) from error


def _then_plain(own: Callable[..., Any]) -> Callable[..., Any]:
    def on_save_checkpoint(checkpoint: dict[str, Any]) -> None:
        own(checkpoint)
        for name, value in list(checkpoint.items()):
            if isinstance(value, Mapping) and name != "state_dict":
                plain = {key: _as_plain(item) for key, item in value.items()}
                checkpoint[name] = {
                    key: item for key, item in plain.items() if not _is_secret(str(key), item) and _is_plain(item)
                }
            elif not _is_plain(value):
                del checkpoint[name]

    return on_save_checkpoint


def _is_secret(key: str, value: Any) -> bool:
    return isinstance(value, str | int | list | dict) and masked_values(value, key, masked_if_whole) != value


def _as_plain(value: Any) -> Any:
    """Return a value with other list and mapping types, such as OmegaConf's, converted to list and dict."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | tuple | range):
        return [_as_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _as_plain(item) for key, item in value.items()}
    return value


def _is_plain(value: Any) -> bool:
    """Return whether `torch.load(weights_only=True)` can load a value."""
    if _is_known(value):
        return True
    stream = io.BytesIO()
    try:
        torch.save(value, stream)
        stream.seek(0)
        torch.load(stream, weights_only=True)
    except Exception:  # pickle raises anything
        return False
    return True


def _is_known(value: Any, depth: int = 8) -> bool:
    """Return whether a value consists of tensors and Python's own types, which need no attempt to load them."""
    kind = type(value)
    if kind in (Tensor, Parameter):
        return not vars(value) and value.device.type in ("cpu", "cuda") and value.layout == torch.strided
    if kind in (list, tuple, dict, OrderedDict) and depth:
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        own = getattr(value, "__dict__", {}).values()  # a state_dict has `_metadata`
        return all(_is_known(part, depth - 1) for part in (*parts, *own))
    return kind in (bool, int, float, str, bytes, type(None))
