"""The cost of the dropout control in a sequential trial: steps a second of a plain loop with and without it.

python scripts/bench/control_cost.py [WORKLOAD ...] [--quick]

One module, its own dropout at the same rates, forward, backward and fused AdamW on one batch: as it is; under a mode
that sees each dropout call and lets it run as written (interception only); under the trial's control, which draws
seeded masks. Variants alternate in one process, on a CPU with one thread. Drawing is also timed by itself: the bits
of all masks of a step as the control draws them, and the same masks by torch's own generator.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from parts import Parts
from section import Section
from torch import Tensor

from dropsearch.dropout.mode import DropoutMode
from dropsearch.dropout.ops import DropCall
from dropsearch.dropout.row_control import mask_shapes
from dropsearch.dropout.trial_control import SeededNoise, TrialControl
from dropsearch.training.logged_steps import captured_logs


class Onlooker(DropoutMode):
    """Sees each call and lets it run as it was written."""

    def on_drop(self, site: str, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        """Return what the call returns."""
        return original()


class Loop:
    """A plain loop over one batch."""

    def __init__(self, parts: Parts) -> None:
        self.spec = parts.specs(1)[0]
        self.device = parts.device
        self.module: Any = parts.make_module(self.spec).to(self.device).train()
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-4, fused=True)
        self.batch = next(iter(parts.source.train_loader(0)))
        self.control, self.onlooker = TrialControl(self.module, self.spec.rates, 0), Onlooker(self.module)

    def seconds(self, around: Callable[[int], AbstractContextManager[None]], steps: int) -> float:
        """Return the seconds of a step, with `around(step)` around its forward pass."""
        started = time.perf_counter()
        for step in range(steps):
            with around(step):
                loss = self.module.training_step(self.batch, step)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.wait()
        return (time.perf_counter() - started) / steps

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def turn(self, steps: int) -> dict[str, float]:
        """Return the seconds of a step, variant by variant."""
        found = {"as it is": self.seconds(lambda _: nullcontext(), steps)}
        with self.onlooker.watching(self.spec.rates):
            found["seen"] = self.seconds(lambda _: self.onlooker.step(), steps)
        with self.control.watching(self.spec.rates):
            found["controlled"] = self.seconds(self.control.training_step, steps)
        return found

    def drawing(self, steps: int) -> tuple[float, float]:
        """Return the seconds of drawing a step's masks: seeded bits, and by torch's generator."""
        shapes = mask_shapes(self.module, self.spec.rates, lambda: self.module.training_step(self.batch, 0))
        noise = SeededNoise(0)

        def seeded(step: int) -> None:
            noise.step = step
            for site, shape in shapes.items():
                noise.bits(site, shape, self.device)

        def torchs(step: int) -> None:
            for shape in shapes.values():
                torch.empty(shape, device=self.device).bernoulli_(0.5)

        return self._drawn(seeded, steps), self._drawn(torchs, steps)

    def _drawn(self, draw: Callable[[int], None], steps: int) -> float:
        draw(0)
        self.wait()
        started = time.perf_counter()
        for step in range(steps):
            draw(step)
        self.wait()
        return (time.perf_counter() - started) / steps


def rows(name: str, quick: bool) -> list[list[str]]:
    """Measure a workload."""
    loop = Loop(Parts.load(name, quick=quick))
    with captured_logs(loop.module):
        loop.turn(2)
        one = loop.seconds(lambda _: nullcontext(), 2)
        steps = max(3, int((0.1 if quick else 1.0) / one))
        turns = [loop.turn(steps) for _ in range(2 if quick else 7)]
        draws = [loop.drawing(steps) for _ in range(2 if quick else 5)]
    seeded, torchs = (1000 * statistics.median(side) for side in zip(*draws, strict=True))
    return [
        [
            name,
            f"{1 / statistics.median(turn['as it is'] for turn in turns):,.0f}",
            *(cell for variant in ("seen", "controlled") for cell in _against(turns, variant)),
            f"{seeded:.3f}",
            f"{torchs:.3f}",
        ]
    ]


def _against(turns: list[dict[str, float]], variant: str) -> tuple[str, str]:
    more = [1000 * (turn[variant] - turn["as it is"]) for turn in turns]
    rate = 1 / statistics.median(turn[variant] for turn in turns)
    return f"{rate:,.0f}", f"**{statistics.median(more):.3f}** ({min(more):.3f} to {max(more):.3f})"


SECTION = Section(
    "The cost of the dropout control",
    "One module under a plain loop: as it is, with its dropout calls seen and let through, and with the trial's "
    "control, which draws seeded masks. Then drawing the masks of a step by itself.",
    (
        "workload",
        "as it is, steps/s",
        "seen, steps/s",
        "added, ms a step",
        "controlled, steps/s",
        "added, ms a step",
        "drawing seeded bits, ms",
        "by torch's generator, ms",
    ),
    rows,
)

if __name__ == "__main__":
    SECTION.main()
