"""What training steps do, found by running one of the first row: masks, changed buffers and logged numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from dropsearch.core.batches import cast
from dropsearch.dropout.row_control import Shapes, mask_shapes
from dropsearch.training.logged_steps import call_step, captured_logs
from dropsearch.training.vectorized.effects import EffectRecorder
from dropsearch.training.vectorized.held_once import noting_changed_buffers
from dropsearch.training.vectorized.observation import logged_numbers
from dropsearch.training.vectorized.row_stacks import RowStack, stacks
from dropsearch.training.vectorized.trial_row import TrialRow
from dropsearch.training.vectorized.vmap_runner import VmapRunner


class FirstSteps:
    """Runs steps of the skeleton, which is restored, to find what the steps of all rows do."""

    def __init__(self, runner: VmapRunner, sites: Iterable[str], dtype: torch.dtype) -> None:
        self.runner, self.dtype = runner, dtype
        self._sites = tuple(sites)
        self._shapes: dict[tuple[object, ...], Shapes] = {}
        self._changing: set[str] = set()
        self._batch: Any = None
        self._numbers: dict[str, float] = {}
        """Numbers logged by the training steps of the first row."""

    def follow(self, loaders: Iterable[Any], device: torch.device) -> set[str]:
        """Run a step on the first batch that a loader yields; return the buffers that steps change."""
        buffers = [name for name, _ in self.runner.skeleton.named_buffers()]
        for loader in loaders:
            try:
                batch = next(iter(loader))
            except Exception:  # the row fails when it trains
                continue
            (stack,) = stacks({0: batch}, device)
            self._batch = cast(stack.of(0), self.dtype)
            self.mask_shapes(stack)
            metrics = tuple(f"{path}." for path in self.runner.traits.metrics)
            return self._changing | {name for name in buffers if name.startswith(metrics)}
        return set(buffers)

    def mask_shapes(self, stack: RowStack) -> Shapes:
        """Return the shapes of a row's masks for the batches of a stack."""
        if stack.shape in self._shapes:
            return self._shapes[stack.shape]
        skeleton = self.runner.skeleton
        batch = cast(stack.of(stack.rows[0]), self.dtype)
        self.runner.set_mode(training=True)  # a new shape may occur after an evaluation
        plain = self.runner.traits.is_plain
        logs = captured_logs(skeleton) if plain else EffectRecorder(skeleton, self.runner.traits).recording()
        row = self.runner.carried.as_first(self.runner.modules)
        with row, logs, noting_changed_buffers(skeleton) as changing:
            shapes = mask_shapes(skeleton, self._sites, lambda: call_step(skeleton.training_step, batch, 0))
        self._shapes[stack.shape] = shapes
        self._changing |= changing
        return shapes

    def note_numbers(self, trial_row: TrialRow) -> None:
        """Record the numbers in which a row's training steps differ from other rows, such as a logged `lr`."""
        traits = self.runner.traits
        if not traits.numbers or self._batch is None:
            return
        found = logged_numbers(trial_row.module, self._batch, traits)
        self._numbers = self._numbers or found
        trial_row.numbers = {name: value for name, value in found.items() if value != self._numbers.get(name)}
