"""Evaluation with dropout on, and nothing else."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dropsearch
from dropsearch.core.errors import InputError
from tests.dropout.tools.test_inventory import same, state
from tests.dropout.user_blocks import Encoder, Tagger
from tests.dropout.user_lightning import Frozen, Litten
from tests.dropout.user_modules import USER_MODULES, sentences
from tests.dropout.user_nets import Moving, SmallVision

NOT_IN_EVALUATION = ("dict_batch", "pytorch_lightning", "renormed")
"""They have no forward, or write into their parameters in eval mode too."""


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in USER_MODULES if name not in NOT_IN_EVALUATION])
def test_nothing_of_the_module_is_changed_but_what_it_keeps_itself(name: str, training: bool) -> None:
    example = USER_MODULES[name]
    module, batch = example.make().train(training), example.batch()
    inputs = batch[0] if hasattr(module, "training_step") else batch
    before = state(module)
    predict = dropsearch.MCDropout(module, samples=2)
    predict(**inputs) if isinstance(inputs, dict) else predict(*inputs if isinstance(inputs, tuple) else (inputs,))
    after = state(module)
    del before["random"], after["random"]
    assert same(before, after)


def test_dropout_is_on_at_functional_calls_and_batchnorm_stays_as_in_evaluation() -> None:
    module, x = SmallVision(), torch.randn(16, 1, 8, 8)
    module(x)
    module.eval()
    expected = module(x)
    with dropsearch.set_rates(module, {"model": 0.0, "model#2": 0.0, "model#3": 0.0}):
        assert torch.allclose(dropsearch.MCDropout(module, samples=1)(x), expected, atol=1e-6)
    first, second = dropsearch.MCDropout(module, samples=2).draw(x)
    assert not torch.equal(first, second)
    assert torch.equal(module(x), expected)


class FunctionalNorm(nn.Module):
    """Normalises by calls, one of them with its arguments by place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((4,), 2.0))
        self.register_buffer("var", torch.full((4,), 4.0))

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(x, self.mean, self.var, None, None, self.training, 0.5)
        return F.batch_norm(x, self.mean, self.var, training=self.training)


def test_norms_that_are_called_as_functions_keep_their_statistics() -> None:
    module, x = FunctionalNorm().eval(), torch.randn(8, 4)
    assert torch.equal(dropsearch.MCDropout(module, samples=1)(x), module(x))
    assert torch.equal(module.mean, torch.full((4,), 2.0))


def test_a_batchnorm_in_a_plain_list_is_kept() -> None:
    module = nn.Sequential(nn.Linear(3, 3))
    module.norms = [nn.BatchNorm1d(3)]  # type: ignore[assignment]
    module.register_forward_hook(lambda part, _, x: part.norms[0](x))
    dropsearch.MCDropout(module, samples=2)(torch.randn(5, 3))
    assert int(module.norms[0].num_batches_tracked) == 0  # type: ignore[index]
    assert module.norms[0].training  # type: ignore[index]


def test_weights_with_spectral_norm_stay_as_they_are() -> None:
    module = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Dropout(0.0)).eval()
    x = torch.randn(3, 4)
    assert torch.equal(dropsearch.MCDropout(module, samples=1)(x), module(x))


def test_the_mean_is_that_of_the_samples_and_of_the_modules_form() -> None:
    module, x = Litten().eval(), torch.randn(6, 5)
    predict = dropsearch.MCDropout(module, samples=40)
    torch.manual_seed(1)
    samples = predict.draw(x).detach()
    torch.manual_seed(1)
    mean = predict(x)
    assert samples.shape == (40, 6, 3)
    assert torch.allclose(mean, samples.mean(0), atol=1e-6)
    assert float(samples.std(0).min()) > 0


def test_a_sample_drops_the_modules_own_share() -> None:
    samples = dropsearch.MCDropout(nn.Dropout(0.3).eval(), samples=20).draw(torch.ones(50, 50))
    assert float((samples == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(samples.mean()) == pytest.approx(1.0, abs=0.02)


def test_a_transform_is_applied_before_the_mean() -> None:
    module, x = Litten().eval(), torch.randn(6, 5)
    probabilities = dropsearch.MCDropout(module, samples=30, transform=lambda logits: logits.softmax(-1))
    torch.manual_seed(1)
    mean = probabilities(x)
    torch.manual_seed(1)
    of_logits = dropsearch.MCDropout(module, samples=30)(x).softmax(-1)
    assert torch.allclose(mean.sum(-1), torch.ones(6))
    assert not torch.allclose(mean, of_logits, atol=1e-4)


class Answer(NamedTuple):
    logits: Tensor
    classes: Tensor


@dataclass
class Note:
    logits: Tensor
    text: str = "a note"


class Answers(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        x = F.dropout(x, 0.5, self.training)
        answer, note = Answer(x, x.argmax(-1)), Note(x)
        return {"pair": (x, [x * 2]), "answer": answer, "note": note, "name": "answers", "none": None}


def test_outputs_of_any_form_keep_it() -> None:
    x = torch.rand(4, 5)
    mean = dropsearch.MCDropout(Answers(), samples=3)(x)
    assert mean["pair"][0].shape == (4, 5)
    assert torch.equal(mean["pair"][0] * 2, mean["pair"][1][0])
    assert isinstance(mean["answer"], Answer)
    assert mean["answer"].classes.dtype == torch.long
    assert (mean["name"], mean["none"]) == ("answers", None)
    assert mean["note"].logits.shape == (4, 5)
    drawn = dropsearch.MCDropout(Answers(), samples=3).draw(x)
    assert drawn["note"].logits.shape == (3, 4, 5)
    assert drawn["answer"].classes.shape == (3, 4)
    assert drawn["pair"][1][0].shape == (3, 4, 5)


def test_attention_recurrent_and_frozen_parts_drop_too() -> None:
    tokens = torch.randint(0, 11, (3, 4))
    encoder = Encoder().eval()
    with dropsearch.set_rates(
        encoder, {f"encoder.layers.{i}.{d}": 0.0 for i in (0, 1) for d in ("dropout", "dropout1")}
    ):
        for layer in encoder.encoder.layers:
            layer.dropout2.p = 0.0  # only attention is left
        first, second = dropsearch.MCDropout(encoder, samples=2).draw(tokens)
    assert not torch.equal(first, second)

    tagger = Tagger().eval()
    batch = {key: value for key, value in sentences().items() if key != "tags"}
    with dropsearch.set_rates(tagger, {"drop": 0.0, "model": 0.0}):
        first, second = dropsearch.MCDropout(tagger, samples=2).draw(**batch)
    assert not torch.equal(first, second)

    frozen = Frozen().eval()
    with dropsearch.set_rates(frozen, {"model": 0.0}):
        first, second = dropsearch.MCDropout(frozen, samples=2).draw(torch.randn(4, 5))
    assert not torch.equal(first, second)


def test_in_a_context_each_call_of_the_module_is_one_sample() -> None:
    module, x = Litten().eval(), torch.randn(6, 5)
    before, buffers = module(x), copy.deepcopy(dict(module.named_buffers()))
    with dropsearch.MCDropout(module) as predict:
        assert not torch.equal(module(x), module(x))
        assert not torch.equal(predict(x), predict(x))
        assert module.training
        assert not module.bn.training
    assert torch.equal(module(x), before)
    assert same(buffers, dict(module.named_buffers()))


def test_buffers_that_a_forward_replaces_are_put_back() -> None:
    module = Moving().eval()
    average = module.average
    dropsearch.MCDropout(module, samples=3)(torch.randn(5, 4))
    assert module.average is average
    assert int(module.steps) == 0


def test_gradients_flow_where_they_are_wanted() -> None:
    x = torch.randn(6, 5, requires_grad=True)
    dropsearch.MCDropout(Litten().eval(), samples=3)(x).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    with torch.no_grad():
        assert not dropsearch.MCDropout(Litten().eval(), samples=3)(x).requires_grad


@pytest.mark.parametrize("samples", [0, -1, 2.5, True])
def test_a_wrong_number_of_samples_is_one_clear_line(samples: Any) -> None:
    with pytest.raises(InputError, match=f"samples must be an integer of at least 1, got {samples}"):
        dropsearch.MCDropout(nn.Dropout(), samples=samples)
