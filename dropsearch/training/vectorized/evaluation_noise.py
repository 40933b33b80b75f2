"""Random numbers of validation steps, which most modules do not use (a VAE does)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from dropsearch.core.batches import tensors
from dropsearch.core.records import TrialSpec
from dropsearch.core.seeds import derived_seed
from dropsearch.dropout.row_control import RowBits, RowRates, Shapes, row_rates
from dropsearch.training.vectorized.row_stacks import RowStack
from dropsearch.training.vectorized.trial_row import TrialRow

Noise = tuple[RowRates, Mapping[str, Tensor]]

NOTHING: Noise = ({}, {})


class EvaluationNoise:
    """Draws the random bits of validation steps, for each row the same as in sequential training."""

    def __init__(self, shapes_of: Callable[[Any], Shapes], mask_seed: Callable[[TrialSpec], int]) -> None:
        self._shapes_of, self._mask_seed = shapes_of, mask_seed
        self._shapes: dict[tuple[Any, ...], Shapes] = {}
        self.draws = False

    def observe(self, batches: Iterable[Any]) -> None:
        """Detect whether a validation step draws or drops, by a step on the first batch."""
        self.draws = any(bool(self._shapes_for(batch)) for batch, _ in zip(batches, range(1), strict=False))

    def _shapes_for(self, batch: Any) -> Shapes:
        key = tuple(tensor.shape for tensor in tensors(batch))
        if key not in self._shapes:
            self._shapes[key] = self._shapes_of(batch)
        return self._shapes[key]

    def of(self, trial_rows: Sequence[TrialRow], of: str, stack: RowStack, like: Tensor) -> Noise:
        """Return the rates and bits for the next validation step of some rows; call `count` after the step.

        `of` names the data; `like` is a tensor of the dtype and device of the rows.
        """
        if not self.draws:
            return NOTHING
        steps = [trial_row.evaluations[of] for trial_row in trial_rows]
        return self.at(steps, [each.spec for each in trial_rows], of, stack.of(stack.rows[0]), like)

    def count(self, trial_rows: Iterable[TrialRow], of: str) -> None:
        """Count a validation step of some rows."""
        for trial_row in trial_rows:
            trial_row.evaluations[of] += 1

    def at(self, steps: Sequence[int], specs: Sequence[TrialSpec], of: str, batch: Any, like: Tensor) -> Noise:
        """Return the rates and bits for given step numbers; `batch` is that of one row, other arguments as in `of`."""
        if not self.draws:
            return NOTHING
        seeds = [derived_seed(self._mask_seed(spec), of) for spec in specs]
        rates = row_rates([spec.rates for spec in specs], like.dtype, like.device)
        return rates, RowBits(self._shapes_for(batch), len(specs), like.device).draw(seeds, steps)
