"""A Lightning module's own steps, run for all rows of an array at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dropsearch.dropout.row_control import RowDropoutControl, RowRates
from dropsearch.training.logged_steps import captured_logs
from dropsearch.training.modes import Modes, set_to_train
from dropsearch.training.protocols import Convolutions
from dropsearch.training.vectorized.mixed_precision import MixedPrecision
from dropsearch.training.vectorized.row_convolutions import RowConvolutions
from dropsearch.training.vectorized.stacked_state import StackedState
from dropsearch.training.vectorized.vmap_rnn import VmapRNN

_CONVOLUTIONS: dict[Convolutions, Any] = {
    "grouped": nullcontext,
    "by row": RowConvolutions,
}


class _Step(nn.Module):
    """Makes a step of a module its forward, so that `functional_call` can run it."""

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.module = module
        self.name = "training_step"

    def forward(self, *args: Any) -> Any:
        with _as_if_compiled():
            return getattr(self.module, self.name)(*args)


@contextmanager
def _as_if_compiled() -> Iterator[None]:
    """Tell code that asks that it is being compiled.

    It then does without looking at the values of tensors, which nobody can under `vmap` either. Transformers asks
    before it leaves out the mask of a batch that has no padding.
    """
    asked = torch.compiler.is_compiling
    torch.compiler.is_compiling = lambda: True
    try:
        yield
    finally:
        torch.compiler.is_compiling = asked


class VmapRunner:
    """Runs the steps of `skeleton` under ``torch.func.vmap``, each row with its own parameters and rates.

    Args:
        skeleton: A module of the shape of all rows; its own parameters are not used.
        precision: Lightning's name for it; in bf16-mixed products are computed in bfloat16.
        convolutions: How they run: see `TrainerSettings`.
    """

    def __init__(
        self, skeleton: LightningModule, precision: str = "32-true", convolutions: Convolutions = "grouped"
    ) -> None:
        self.skeleton = skeleton
        self._precision = MixedPrecision if precision == "bf16-mixed" else nullcontext
        self._convolutions = _CONVOLUTIONS[convolutions]
        self._modes = Modes(set_to_train(skeleton))
        self._training = True
        self._call = _Step(skeleton)
        self.control = RowDropoutControl(skeleton)

    @contextmanager
    def ready(self, sites: Iterable[str] | None = None) -> Iterator[None]:
        """What the steps need around them, entered once for many; `sites` are all places that call dropout."""
        fastpath = torch.backends.mha.get_fastpath_enabled()
        # In eval mode `nn.TransformerEncoderLayer` takes one fused call, which has no batching rule.
        torch.backends.mha.set_fastpath_enabled(False)
        with ExitStack() as stack:
            stack.callback(torch.backends.mha.set_fastpath_enabled, fastpath)
            stack.enter_context(self.control.watching(sites))
            yield

    def train(
        self, rows: StackedState, batch: Any, rates: RowRates, bits: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the training step of all rows.

        Args:
            rows: The array.
            batch: As the module takes it, each tensor with one more dimension in front: `[rows, batch, ...]`.
            rates: The rates of each site, `[rows]`.
            bits: The random bits of each site's mask, `[rows, *mask]`.

        Returns:
            The losses `[rows]`, and what was logged, `[rows]` each.
        """

        def one(parameters: Any, buffers: Any, batch: Any, rates: Any, bits: Any) -> tuple[Tensor, dict[str, Tensor]]:
            self.control.load(rates, bits)
            result, logged = self._run("training_step", parameters, buffers, batch)
            loss = result["loss"] if isinstance(result, Mapping) else result
            return loss, logged

        self._set_mode(training=True)
        return vmap(one)(rows.parameters, rows.buffers, batch, rates, dict(bits))

    @torch.no_grad()
    def evaluate(self, rows: StackedState, batch: Any, step: str = "validation_step") -> dict[str, Tensor]:
        """Run an evaluation step of all rows on the same batch, with dropout off; return what was logged, `[rows]`."""

        def one(parameters: Any, buffers: Any) -> dict[str, Tensor]:
            self.control.load({}, {})
            return self._run(step, parameters, buffers, batch)[1]

        self._set_mode(training=False)
        parameters = {name: parameter.detach() for name, parameter in rows.parameters.items()}
        return vmap(one)(parameters, rows.buffers)

    def _set_mode(self, *, training: bool) -> None:
        if self._training is not training:  # walking through all modules takes as long as a small layer
            if training:
                self._modes.put_back()
            else:
                self.skeleton.eval()
            self._training = training

    def _run(self, step: str, parameters: Any, buffers: Any, batch: Any) -> tuple[Any, dict[str, Tensor]]:
        self._call.name = step
        state = {f"module.{name}": value for name, value in (*parameters.items(), *buffers.items())}
        # What the later modes write out in full passes through the earlier ones.
        modes = (self._convolutions(), self._precision(), self.control.step(), VmapRNN())
        with captured_logs(self.skeleton) as logged, ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode)
            result = functional_call(self._call, state, (batch, 0))
        device = next((tensor.device for tensor in state.values()), None)
        return result, {name: _as_tensor(value, device) for name, value in logged.items()}


def _as_tensor(value: Any, device: torch.device | None) -> Tensor:
    """Return what was logged as a tensor; a Python number is filled in on the device, for a copy cannot be recorded."""
    return value.detach() if isinstance(value, Tensor) else torch.full((), float(value), device=device)
