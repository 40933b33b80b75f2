"""dropsearch finds the dropout rate that each layer wants.

A module of your own is searched by a call, see `docs/user-module.md`::

    result = dropsearch.search(lambda: LitNet(width=64), MyData(), n_trials=50)

The models and the Lightning module around them are useful without the rest::

    from dropsearch import MLP, Classifier

    module = Classifier(MLP((1, 8, 8), classes=10, dropout=0.2), lr=1e-3)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropsearch.api.search import search
    from dropsearch.dropout.tools.check import check_dropout
    from dropsearch.dropout.tools.insert import insert_dropout, remove_dropout
    from dropsearch.dropout.tools.inventory import dropout_sites
    from dropsearch.dropout.tools.monte_carlo import MCDropout
    from dropsearch.dropout.tools.set_rates import set_rates
    from dropsearch.models import CNN, MLP, RNN, Classifier, Transformer

__version__ = "0.1.0"
__all__ = [
    "CNN",
    "MLP",
    "RNN",
    "Classifier",
    "MCDropout",
    "Transformer",
    "check_dropout",
    "dropout_sites",
    "insert_dropout",
    "remove_dropout",
    "search",
    "set_rates",
]

_HOMES = {
    **dict.fromkeys(("CNN", "MLP", "RNN", "Classifier", "Transformer"), "dropsearch.models"),
    "dropout_sites": "dropsearch.dropout.tools.inventory",
    "insert_dropout": "dropsearch.dropout.tools.insert",
    "check_dropout": "dropsearch.dropout.tools.check",
    "remove_dropout": "dropsearch.dropout.tools.insert",
    "set_rates": "dropsearch.dropout.tools.set_rates",
    "search": "dropsearch.api.search",
    "MCDropout": "dropsearch.dropout.tools.monte_carlo",
}


def __dir__() -> list[str]:
    # What completion in a notebook shows.
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # Importing torch and lightning takes seconds: only when something that needs them is asked for.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
