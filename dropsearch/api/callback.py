"""A Lightning callback that trains a module at given dropout rates."""

from __future__ import annotations

from collections.abc import Mapping

from lightning import Callback, LightningModule, Trainer

from dropsearch.dropout.tools.set_rates import RatesSet, set_rates


class SetDropoutRates(Callback):
    """Train a LightningModule at given dropout rates; the original rates are restored when the fit ends.

    Equivalent to ``with set_rates(module, rates): trainer.fit(module, ...)``::

        trainer = Trainer(callbacks=[SetDropoutRates(result.best_rates)])

    Args:
        rates: Rate in [0, 1] by site name, as in `dropout_sites` and `SearchResult.best_rates`.

    Raises:
        InputError: Raised when the fit starts: a site is unknown, or a rate is not in [0, 1].
    """

    def __init__(self, rates: Mapping[str, float]) -> None:
        self.rates = dict(rates)
        self._set: RatesSet | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the rates before a fit."""
        if stage == "fit":
            self._set = set_rates(pl_module, self.rates)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the module's rates."""
        self._remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the module's rates after a failed fit, since Lightning then skips `teardown`."""
        self._remove()

    def _remove(self) -> None:
        if self._set is not None:
            self._set.remove()
            self._set = None
