"""Who decides what SIGTERM means while a Lightning Trainer runs."""

from __future__ import annotations

import signal
import threading
from typing import Any

from lightning import Callback, LightningModule, Trainer


class KeepSigtermHandler(Callback):
    """Keeps SIGTERM in the hands of who had it before `fit`.

    Lightning's Trainer puts a handler of its own before any other, and leaves the process by `SystemExit` after
    the batch, with status 0. A run of many trials has to close them first.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the handler; Lightning sets its own between this hook and the next."""
        self._handler: Any = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the handler again; only the main thread may, and only there has Lightning taken it."""
        if threading.current_thread() is threading.main_thread() and self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
