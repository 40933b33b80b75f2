"""dropsearch searches the dropout rate of each layer of a LightningModule.

Search your module without changing its code::

    import dropsearch

    result = dropsearch.search(lambda lr: LitNet(lr=lr), MyData(), n_trials=50)
    print(result)
    model = result.load_best()

List the dropout sites of any module (needs only torch and lightning)::

    print(dropsearch.dropout_sites(model, batch))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dropsearch.core import VERSION

if TYPE_CHECKING:
    from dropsearch.api.callback import SetDropoutRates
    from dropsearch.api.result import SearchResult
    from dropsearch.api.search import search
    from dropsearch.core.errors import InputError, RunError
    from dropsearch.core.records.arms import Site
    from dropsearch.dropout.tools.check import DropoutCheck, check_dropout
    from dropsearch.dropout.tools.insert import Insertion, insert_dropout, remove_dropout
    from dropsearch.dropout.tools.inventory import Inventory, dropout_sites
    from dropsearch.dropout.tools.monte_carlo import MCDropout
    from dropsearch.dropout.tools.register import register_op
    from dropsearch.dropout.tools.set_rates import RatesSet, set_rates
    from dropsearch.models import CNN, MLP, RNN, Classifier, Transformer

__version__ = VERSION
__all__ = [
    "CNN",
    "MLP",
    "RNN",
    "Classifier",
    "DropoutCheck",
    "InputError",
    "Insertion",
    "Inventory",
    "MCDropout",
    "RatesSet",
    "RunError",
    "SearchResult",
    "SetDropoutRates",
    "Site",
    "Transformer",
    "check_dropout",
    "dropout_sites",
    "insert_dropout",
    "register_op",
    "remove_dropout",
    "search",
    "set_rates",
]

_MODULES = {
    "dropsearch.api.callback": ("SetDropoutRates",),
    "dropsearch.api.result": ("SearchResult",),
    "dropsearch.api.search": ("search",),
    "dropsearch.core.errors": ("InputError", "RunError"),
    "dropsearch.core.records.arms": ("Site",),
    "dropsearch.dropout.tools.check": ("DropoutCheck", "check_dropout"),
    "dropsearch.dropout.tools.insert": ("Insertion", "insert_dropout", "remove_dropout"),
    "dropsearch.dropout.tools.inventory": ("Inventory", "dropout_sites"),
    "dropsearch.dropout.tools.monte_carlo": ("MCDropout",),
    "dropsearch.dropout.tools.register": ("register_op",),
    "dropsearch.dropout.tools.set_rates": ("RatesSet", "set_rates"),
    "dropsearch.models": ("CNN", "MLP", "RNN", "Classifier", "Transformer"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    # Imported on first use, since torch and lightning take seconds to import.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "search":
        from dropsearch.core.errors import require

        require("dropsearch.search", "search", "report")
    return getattr(import_module(_MODULE_OF[name]), name)
