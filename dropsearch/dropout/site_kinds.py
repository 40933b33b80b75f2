"""The kind of a site, inferred from its name and the surrounding layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from torch import nn

from dropsearch._compat.torch_modules import ConvBase
from dropsearch.core.errors import InputError, close_match
from dropsearch.core.records import Site
from dropsearch.core.records.arms import KINDS

_LAYER_KINDS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((ConvBase,), "conv"),
    ((nn.RNNBase, nn.RNNCellBase), "rnn"),
    ((nn.Embedding, nn.EmbeddingBag), "embedding"),
    ((nn.MultiheadAttention,), "residual"),
    ((nn.Linear, nn.Bilinear), "hidden"),
)

_ALIASES = {"attn": "attention", "emb": "embedding", "embed": "embedding", "embeddings": "embedding"}
"""Words in names, which are weaker evidence than the surrounding layers."""


def layer_kind(module: nn.Module) -> str:
    """Return the kind of sites after a layer; empty for a module without layer weights."""
    return next((kind for types, kind in _LAYER_KINDS if isinstance(module, types)), "")


def guess_kind(site: str, layer_before: str, *, weights: bool = False, added: bool = False, flat: bool = False) -> str:
    """Infer a site's kind from its activations, otherwise from its name, otherwise from the surrounding layers.

    Args:
        site: The site's name.
        layer_before: The kind of the last layer that ran; empty if none did.
        weights: Whether attention weights are dropped, directly after a softmax.
        added: Whether the result is added to another tensor of activations.
        flat: Whether the activations are one vector per example.
    """
    if weights:
        return "attention"
    words = [word.rstrip("0123456789") for word in reversed(re.split(r"[._#]", site.lower()))]
    named = [word for word in words if word in KINDS]
    branch = added and layer_before not in ("", "embedding")
    # A dropout before a sum does not drop attention weights, whatever the name of the block.
    if named and not (branch and named[0] == "attention"):
        return named[0]
    if branch:
        return "residual"
    aliases = [_ALIASES[word] for word in words if word in _ALIASES]
    if aliases:
        return aliases[0]
    # Flattened features are inputs of linear layers, even after a convolution.
    return "hidden" if layer_before == "conv" and flat else layer_before or "input"


def with_kinds(sites: Iterable[Site], kinds: Mapping[str, str], key: str = "kinds") -> tuple[Site, ...]:
    """Return the sites with user-supplied kinds, by site name or pattern such as ``encoder.*``; the first match counts.

    Messages call the setting `key`.

    Raises:
        InputError: A kind is unknown, or a name or pattern matches no site.
    """
    sites = tuple(sites)
    if not isinstance(kinds, Mapping):
        raise InputError(
            f'{key} must be a kind by site name or pattern, got {kinds!r}: for example {{"encoder.*": "residual"}}'
        )
    for pattern, kind in kinds.items():
        if kind not in KINDS:
            raise InputError(
                f'{key}["{pattern}"] must be one of {", ".join(KINDS)}, got "{kind}"{close_match(kind, KINDS)}'
            )
        if not any(fnmatchcase(site.name, pattern) for site in sites):
            names = [site.name for site in sites]
            raise InputError(
                f'{key} must name sites of the module, got "{pattern}"{close_match(pattern, names)}: '
                f"its sites are {', '.join(names) or 'none'}"
            )
    chosen = {
        site.name: next((kind for pattern, kind in kinds.items() if fnmatchcase(site.name, pattern)), site.kind)
        for site in sites
    }
    return tuple(replace(site, kind=chosen[site.name]) for site in sites)
