"""Protection of signal handlers that a Lightning Trainer replaces or resets."""

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
    """Make a Trainer restore only the handlers of signals that it changes.

    Lightning restores every handler to what `signal.getsignal` returned. That function does not see handlers set by C
    code, such as those of `faulthandler`, so a Trainer resets them to the default.
    """
    with ExitStack() as patches:
        for connector in (sys.modules[name] for name in _CONNECTORS if name in sys.modules):
            kind = connector._SignalConnector
            patches.enter_context(mock.patch.object(kind, "_get_current_signal_handlers", staticmethod(_handlers)))
        yield


class KeepSigtermHandler(Callback):
    """Callback that restores the SIGTERM handler installed before `fit`.

    Lightning's own handler raises `SystemExit` with status 0 after the current batch. A run of many trials must first
    close them.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the handler; Lightning installs its own between this hook and the next."""
        self._handler: Any = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handler. Only the main thread can set one, and only there does Lightning replace it."""
        if threading.current_thread() is threading.main_thread() and self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
