"""The inventory: which sites a model has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from dropsearch.dropout.calls import DropCall
from dropsearch.dropout.control import DropoutMode
from dropsearch.dropout.typical import KINDS
from dropsearch.records import Site

_LAYER_KINDS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.modules.conv._ConvNd,), "conv"),
    ((nn.RNNBase, nn.RNNCellBase), "rnn"),
    ((nn.Embedding, nn.EmbeddingBag), "embedding"),
    ((nn.MultiheadAttention,), "residual"),
    ((nn.Linear, nn.Bilinear), "hidden"),
)


class _Recorder(DropoutMode):
    """Notes each drop with the module that made it; everything runs as it was written."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.sites: dict[str, Site] = {}
        self.last_layer = ""
        self._hooks = [
            module.register_forward_hook(self._remember(kind))
            for module in model.modules()
            if (kind := _layer_kind(module))
        ]

    def _remember(self, kind: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self.last_layer = kind

        return hook

    def release(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def on_drop(self, site: str, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        if call.form != "attention" or call.rate > 0:
            examples = call.input.shape[0] if call.input.dim() > 1 else 1
            kind = guess_kind(site, call.form, self.last_layer)
            self.sites[site] = Site(site, kind, call.rate, math.prod(call.mask_shape) // examples)
        return original()


def _layer_kind(module: nn.Module) -> str:
    return next((kind for types, kind in _LAYER_KINDS if isinstance(module, types)), "")


def guess_kind(site: str, form: str, layer_before: str) -> str:
    """Guess a site's kind: attention by its function, else by the words of its name, else by the layer before.

    Args:
        site: The site's name.
        form: How it drops (`DropCall.form`).
        layer_before: The kind of the layer that ran last, empty where none did.
    """
    if form == "attention":
        return "attention"
    words = site.lower().replace("_", ".").replace("#", ".").split(".")
    named = [kind for word in reversed(words) for kind in KINDS if word.rstrip("0123456789") == kind]
    return named[0] if named else layer_before or "input"


def dropout_sites(model: nn.Module, run: Callable[[], Any]) -> tuple[Site, ...]:
    """Return the sites of a model in the order in which one training pass meets them.

    Args:
        model: In training mode: in eval mode nothing drops and no site is seen.
        run: Runs one training step or forward pass of the model.

    Returns:
        One `Site` for each place. A recurrent layer's own ``dropout=`` runs inside a fused kernel: it is
        listed, and as not controllable.
    """
    recorder = _Recorder(model)
    try:
        with recorder.watching(), recorder.step():
            run()
    finally:
        recorder.release()
    return (*recorder.sites.values(), *_fused_sites(model))


def _fused_sites(model: nn.Module) -> tuple[Site, ...]:
    reason = "it drops between layers inside a fused kernel; use single layers with nn.Dropout between them"
    return tuple(
        Site(name or "model", "rnn", module.dropout, module.hidden_size, controllable=False, reason=reason)
        for name, module in model.named_modules()
        if isinstance(module, nn.RNNBase) and module.dropout > 0 and module.num_layers > 1
    )
