"""Signal handlers that a Lightning Trainer would take over or reset."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from lightning import Callback, LightningModule, Trainer

_CONNECTORS = tuple(
    f"{package}.trainer.connectors.signal_connector" for package in ("lightning.pytorch", "pytorch_lightning")
)
_CHANGED = (signal.SIGTERM, *(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)))
"""The signals whose handlers a Trainer may change."""


def _handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in _CHANGED}


@contextmanager
def other_handlers_kept() -> Iterator[None]:
    """Let a Trainer restore, at its end, the handlers of the signals that it changes and no others.

    Lightning restores all of them to what `signal.getsignal` returned. Handlers that C code has set, such as those of
    `faulthandler` for a segmentation fault, are invisible to it: a Trainer resets them to the default.
    """
    with ExitStack() as patches:
        for connector in (sys.modules[name] for name in _CONNECTORS if name in sys.modules):
            kind = connector._SignalConnector
            patches.enter_context(mock.patch.object(kind, "_get_current_signal_handlers", staticmethod(_handlers)))
        yield


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
