"""Flat optimizers, which step all rows at once, equal `torch.optim` applied to each row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import LightningModule
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from dropsearch.training.vectorized.flat_optimizers import flat_optimizer
from dropsearch.training.vectorized.row_optimizers import UnsupportedError, parameter_order
from dropsearch.training.vectorized.stacked_state import StackedState

CPU = torch.device("cpu")
ROWS, STEPS = 3, 6
betas = st.tuples(st.floats(0.0, 0.99), st.floats(0.5, 0.9999))
adam = st.fixed_dictionaries(
    {"lr": st.floats(1e-5, 1.0), "weight_decay": st.floats(0, 1), "betas": betas, "eps": st.floats(1e-10, 1e-3)}
)
sgd = st.fixed_dictionaries(
    {"lr": st.floats(1e-5, 1.0), "weight_decay": st.floats(0, 0.5), "momentum": st.sampled_from([0.0, 0.5, 0.95])}
).flatmap(
    lambda options: st.one_of(
        st.just({**options, "nesterov": options["momentum"] > 0}),
        st.floats(0, 0.9).map(lambda dampening: {**options, "dampening": dampening}),
    )
)


class Two(LightningModule):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

    def groups(self) -> list[dict]:
        return [{"params": [*self.second.parameters()]}, {"params": [*self.first.parameters()], "lr": 0.03}]


def pairs(kind: type[Optimizer], options: list[dict], dtype: torch.dtype = torch.float64):
    """Return modules with separate optimizers, and equal modules bound to rows with one flat optimizer."""
    separate = [Two(row).to(dtype) for row in range(len(options))]
    bound = [Two(row).to(dtype) for row in range(len(options))]
    optimizers = [kind(m.groups(), **o) for m, o in zip(separate, options, strict=True)]  # type: ignore[arg-type]
    row_optimizers = [kind(m.groups(), **o) for m, o in zip(bound, options, strict=True)]  # type: ignore[arg-type]
    rows = StackedState(bound[0], len(options), parameter_order(bound[0], row_optimizers[0]), CPU, dtype)
    for row, module in enumerate(bound):
        rows.bind(row, module)
    flat = flat_optimizer(rows, bound[0], row_optimizers[0])
    assert flat is not None
    for row, optimizer in enumerate(row_optimizers):
        flat.begin(row, bound[row], optimizer)
    return separate, optimizers, bound, row_optimizers, rows, flat


def train(module: Two, optimizer: Optimizer, generator: torch.Generator) -> None:
    for p in module.parameters():
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
    optimizer.step()


def write_gradients(bound: Two, generator: torch.Generator) -> None:
    for p in bound.parameters():
        assert p.grad is not None
        p.grad.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))


def assert_equal(separate: list[Two], bound: list[Two], tolerance: float) -> None:
    for one, row in zip(separate, bound, strict=True):
        for ours, row_optimizers in zip(row.parameters(), one.parameters(), strict=True):
            assert torch.allclose(ours, row_optimizers, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("kind", "strategy"), [(Adam, adam), (AdamW, adam), (SGD, sgd)])
def test_random_hyperparameters_equal_torch(kind: type[Optimizer], strategy: st.SearchStrategy) -> None:
    @given(options=st.lists(strategy, min_size=ROWS, max_size=ROWS), seed=st.integers(0, 1000))
    @settings(deadline=None, max_examples=25)
    def check(options: list[dict], seed: int) -> None:
        separate, optimizers, bound, row_optimizers, _, flat = pairs(kind, options)
        for step in range(STEPS):
            for row in range(ROWS):
                at = 100 * seed + 10 * step + row
                train(separate[row], optimizers[row], torch.Generator().manual_seed(at))
                write_gradients(bound[row], torch.Generator().manual_seed(at))
            flat.upload()
            flat.step()
            for row in range(ROWS):  # as a schedule does
                for optimizer in (optimizers[row], row_optimizers[row]):
                    optimizer.param_groups[0]["lr"] *= 0.7
                flat.load_options(row, row_optimizers[row])
        assert_equal(separate, bound, 1e-9)

    check()


def test_restarted_row_is_reset() -> None:
    options = [{"lr": 0.1}, {"lr": 0.02}]
    separate, optimizers, bound, row_optimizers, rows, flat = pairs(AdamW, options)
    generators = [torch.Generator().manual_seed(row) for row in range(2)]
    copies = [torch.Generator().manual_seed(row) for row in range(2)]
    for step in range(8):
        if step == 4:
            separate[0], bound[0] = Two(9).double(), Two(9).double()
            optimizers[0], row_optimizers[0] = (AdamW(m.groups(), lr=0.3) for m in (separate[0], bound[0]))
            rows.bind(0, bound[0])
            flat.begin(0, bound[0], row_optimizers[0])
        for row in range(2):
            train(separate[row], optimizers[row], generators[row])
            write_gradients(bound[row], copies[row])
        flat.upload()
        flat.step()
    assert_equal(separate, bound, 1e-12)


def test_narrowing_keeps_state_of_remaining_rows() -> None:
    options = [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.2}, {"lr": 0.3, "momentum": 0.5, "nesterov": True}]
    separate, optimizers, bound, _, rows, flat = pairs(SGD, options)
    generators = [torch.Generator().manual_seed(row) for row in range(3)]
    copies = [torch.Generator().manual_seed(row) for row in range(3)]
    left = [0, 1, 2]
    for step in range(6):
        if step == 3:
            left = [0, 2]
            rows = rows.resized([bound[row] for row in left])
            flat.resize(rows, left)
        for row in left:
            train(separate[row], optimizers[row], generators[row])
            write_gradients(bound[row], copies[row])
        flat.upload()
        flat.step()
    assert_equal([separate[0], separate[2]], [bound[0], bound[2]], 1e-12)


def test_first_float32_steps_equal_torch() -> None:
    separate, optimizers, bound, _, _, flat = pairs(AdamW, [{"lr": 1e-3}], torch.float32)
    one, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for _ in range(3):
        train(separate[0], optimizers[0], one)
        write_gradients(bound[0], other)
        flat.upload()
        flat.step()
    assert_equal(separate, bound, 1e-6)


@pytest.mark.parametrize(
    "make", [lambda p: RMSprop(p), lambda p: Adam(p, amsgrad=True), lambda p: SGD(p, maximize=True)]
)
def test_unsupported_optimizers_have_no_flat_form(make) -> None:
    module = Two(0)
    optimizer = make(module.parameters())
    rows = StackedState(module, 1, parameter_order(module, optimizer), CPU, torch.float32)
    assert flat_optimizer(rows, module, optimizer) is None


def test_different_optimizers_are_rejected() -> None:
    _, _, bound, _, _, flat = pairs(AdamW, [{"lr": 0.1}, {"lr": 0.2}])
    for other in (
        SGD(bound[1].groups(), lr=0.1),
        AdamW(bound[1].groups(), lr=0.1, amsgrad=True),
        AdamW(bound[1].parameters()),
    ):
        with pytest.raises(UnsupportedError, match="differ in class or parameter groups"):
            flat.begin(1, bound[1], other)


@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_parameters_without_a_gradient_stay(kind: type[Optimizer]) -> None:
    separate, optimizers, bound, _, rows, flat = pairs(kind, [{"lr": 0.1, "weight_decay": 0.3}, {"lr": 0.2}])
    names = ["first.bias", "second.weight"]
    for step in range(3):
        for row in range(2):
            train_without(names, separate[row], optimizers[row], torch.Generator().manual_seed(step))
            write_gradients(bound[row], torch.Generator().manual_seed(step))
        flat.upload()
        flat.step([rows.spans[name] for name in names])
    assert_equal(separate, bound, 1e-12)


def train_without(names: list[str], module: Two, optimizer: Optimizer, generator: torch.Generator) -> None:
    for name, p in module.named_parameters():
        gradient = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        p.grad = None if name in names else gradient
    optimizer.step()
