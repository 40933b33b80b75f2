"""A Lightning callback that trains a module at given dropout rates."""

from __future__ import annotations

from collections.abc import Mapping

from lightning import Callback, LightningModule, Trainer

from dropsearch.dropout.tools.set_rates import RatesSet, set_rates


class SetDropoutRates(Callback):
    """Train a LightningModule at given dropout rates; its own rates are back when the fit ends.

    Equivalent to ``with set_rates(module, rates): trainer.fit(module, ...)``::

        trainer = Trainer(callbacks=[SetDropoutRates(result.best_rates)])

    Args:
        rates: Rate in [0, 1] by site name, as `dropout_sites` lists them and `SearchResult.best_rates` returns them.

    Raises:
        InputError: When the fit starts: a name is not that of a site, or a rate is not in [0, 1].
    """

    def __init__(self, rates: Mapping[str, float]) -> None:
        self.rates = dict(rates)
        self._set: RatesSet | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the rates before a fit."""
        if stage == "fit":
            self._set = set_rates(pl_module, self.rates)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the module's own rates back."""
        self._remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the module's own rates back where a fit fails: Lightning calls no teardown then."""
        self._remove()

    def _remove(self) -> None:
        if self._set is not None:
            self._set.remove()
            self._set = None
