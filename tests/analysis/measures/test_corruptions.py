from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from dropsearch.analysis.measures import corruptions
from dropsearch.analysis.measures.corruptions import (
    STRONGEST,
    blur,
    contrast,
    corrupt,
    corrupted,
    features_of,
    translation,
)
from dropsearch.analysis.measures.protocol import Examples, Settings
from tests.analysis.measures.winners import examples

NOISES = (corruptions.noise, corruptions.salt_and_pepper)
LAYOUTS = [("image", kind) for kind in STRONGEST] + [
    (layout, kind) for layout in ("signal", "sequence") for kind in NOISES
]


def of(layout: str, kind: corruptions.Corruption, amount: float, seed: int = 0, size: int = 40) -> Examples:
    clean = examples(layout, size)
    return corrupt(clean, features_of(clean), kind, amount, seed)


@pytest.mark.parametrize(("layout", "kind"), LAYOUTS)
def test_an_amount_of_zero_changes_nothing(layout: str, kind: corruptions.Corruption) -> None:
    clean, found = examples(layout), of(layout, kind, 0.0)
    assert torch.allclose(found.inputs[0], clean.inputs[0], atol=1e-5)
    assert torch.equal(found.targets, clean.targets)


@pytest.mark.parametrize(("layout", "kind"), LAYOUTS)
def test_the_same_seed_corrupts_alike_and_leaves_torchs_generator(layout: str, kind: corruptions.Corruption) -> None:
    before = torch.get_rng_state()
    assert torch.equal(of(layout, kind, 0.2).inputs[0], of(layout, kind, 0.2).inputs[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", [kind for kind in STRONGEST if kind not in (blur, contrast)])
def test_another_seed_corrupts_otherwise(kind: corruptions.Corruption) -> None:
    assert not torch.equal(of("image", kind, 0.2).inputs[0], of("image", kind, 0.2, seed=1).inputs[0])


@pytest.mark.parametrize(("layout", "kind"), LAYOUTS)
@settings(max_examples=15)
@given(amount=st.floats(0.02, 1), more=st.floats(1.1, 2))
def test_a_greater_amount_changes_more(layout: str, kind: corruptions.Corruption, amount: float, more: float) -> None:
    strongest, clean = STRONGEST[kind], examples(layout).inputs[0]
    less, greater = (of(layout, kind, strongest * each / 2).inputs[0] for each in (amount, amount * more))
    assert float((greater - clean).abs().mean()) >= float((less - clean).abs().mean()) - 1e-6


def test_noise_is_scaled_to_the_spread_of_each_channel() -> None:
    clean = Examples((torch.randn(500, 2, 8, 8) * torch.tensor([1.0, 50.0]).view(1, 2, 1, 1),), torch.zeros(500).long())
    noisy = corrupt(clean, features_of(clean), corruptions.noise, 0.5)
    added = (noisy.inputs[0] - clean.inputs[0]).std((0, 2, 3)) / clean.inputs[0].std((0, 2, 3))
    assert added.tolist() == pytest.approx([0.5, 0.5], rel=0.02)


def test_salt_and_pepper_sets_its_share_to_the_ends_of_the_data_half_each() -> None:
    clean = examples("image", 400)
    found = of("image", corruptions.salt_and_pepper, 0.3, size=400).inputs[0]
    ends = features_of(clean)
    assert float((found == ends.low).float().mean()) == pytest.approx(0.15, abs=0.01)
    assert float((found == ends.high).float().mean()) == pytest.approx(0.15, abs=0.01)


def test_blur_is_that_of_scipy() -> None:
    clean, found = examples("image").inputs[0], of("image", blur, 0.1).inputs[0]
    expected = gaussian_filter(clean.numpy().astype(float), (0, 0, 0.8, 0.8), mode="nearest", radius=(0, 0, 3, 3))
    assert np.allclose(found.numpy(), expected, atol=1e-5)


def test_contrast_keeps_the_mean_and_shrinks_what_is_around_it() -> None:
    clean, found = examples("image").inputs[0], of("image", contrast, 0.75).inputs[0]
    assert torch.allclose(found.mean((-2, -1)), clean.mean((-2, -1)), atol=1e-6)
    assert torch.allclose(found.std((-2, -1)), clean.std((-2, -1)) / 4, atol=1e-6)


def test_a_shift_moves_a_spot_by_its_share_of_the_side() -> None:
    x = torch.zeros(30, 1, 21, 21)
    x[:, :, 10, 10] = 1.0
    clean = Examples((x,), torch.zeros(30, dtype=torch.long))
    found = corrupt(clean, features_of(clean), translation, 0.2).inputs[0][:, 0]
    places = torch.arange(21.0) - 10
    down, right = (found.sum(2) * places).sum(1), (found.sum(1) * places).sum(1)
    assert torch.hypot(down, right).tolist() == pytest.approx([0.2 * 21] * 30, abs=0.1)
    assert float(down.std()) > 1


@pytest.mark.parametrize("kind", NOISES)
def test_padding_stays_zero_and_lengths_as_they_are(kind: corruptions.Corruption) -> None:
    clean, found = examples("sequence"), of("sequence", kind, 0.3)
    x, lengths = found.inputs
    padding = torch.arange(x.shape[1]) >= lengths[:, None]
    assert torch.equal(lengths, clean.inputs[1])
    assert float(x[padding].abs().max()) == 0
    assert not torch.equal(x, clean.inputs[0])


@pytest.mark.parametrize(("layout", "names"), [("image", 5), ("signal", 2), ("sequence", 2)])
def test_images_have_corruptions_of_their_own(layout: str, names: int) -> None:
    found = list(corrupted(examples(layout), layout == "image", Settings(severities=3)))
    assert len(found) == 3 * names
    assert len({name for name, _ in found}) == names


def test_every_network_of_a_run_gets_the_same_tensors() -> None:
    clean, settings = examples(), Settings()
    one, again = (list(corrupted(clean, True, settings)) for _ in range(2))
    assert all(a.inputs[0] is b.inputs[0] for (_, a), (_, b) in zip(one, again, strict=True))


def test_what_takes_too_much_memory_is_made_again_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, settings = examples(), Settings()
    kept = list(corrupted(clean, True, settings))
    monkeypatch.setattr(corruptions, "KEPT_BYTES", 0)
    again = list(corrupted(clean, True, settings))
    assert all(a.inputs[0] is not b.inputs[0] for (_, a), (_, b) in zip(kept, again, strict=True))
    assert all(torch.equal(a.inputs[0], b.inputs[0]) for (_, a), (_, b) in zip(kept, again, strict=True))


def test_features_that_are_not_real_numbers_are_unchanged() -> None:
    words = Examples((torch.randint(50, (10, 6)),), torch.zeros(10, dtype=torch.long))
    assert list(corrupted(words, False, Settings())) == []
