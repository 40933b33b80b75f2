"""Masks drawn on the device are the masks drawn on the host, number for number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dropsearch.dropout.mask_bits import DeviceBits, SiteBits, philox, site_word, words
from dropsearch.dropout.row_control import RowBits
from dropsearch.dropout.trial_control import SeededNoise

CPU = torch.device("cpu")
SHAPES = {"net.a": torch.Size((5, 7)), "net.b": torch.Size((3, 2, 1, 1)), "net.b#2": torch.Size((64,))}


def test_philox_gives_the_published_numbers() -> None:
    """The first line of the known answers that come with Random123, for philox4x64 with 10 rounds."""
    none = torch.zeros(1, dtype=torch.int64)
    answer = philox((none, none, none, none), (none, none))
    known = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert torch.equal(answer[0], words(known, CPU))


@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 2**40), count=st.integers(1, 200))
@settings(deadline=None, max_examples=50)
def test_they_are_numpys_numbers(seed: int, step: int, count: int) -> None:
    index = torch.arange(1, count // 16 + 2)
    counter = (index, words([step], CPU), words([site_word("x")], CPU), words([0], CPU))
    drawn = philox(counter, (words([seed], CPU), words([0], CPU))).view(torch.int16).flatten()[:count]
    assert torch.equal(drawn, torch.from_numpy(SiteBits().draw(seed, "x", step, count)))


def test_bits_of_rows_are_those_of_the_host() -> None:
    host, device = RowBits(SHAPES, 3, CPU), DeviceBits(SHAPES, 3, CPU)
    for seeds, steps in (([4, 9, 4], [0, 17, 5]), ([4, 77, 4], [1, 0, 6])):
        expected, drawn = host.draw(seeds, steps), device.draw(seeds, steps)
        for site, shape in SHAPES.items():
            assert drawn[site].shape == (3, *shape)
            assert torch.equal(drawn[site], expected[site]), site


def test_a_model_without_sites_draws_nothing() -> None:
    assert DeviceBits({}, 2, CPU).draw([1, 2], [0, 0]) == {}


def test_a_sequential_trial_has_the_same_masks_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def masks(on_device: bool) -> list[torch.Tensor]:
        monkeypatch.setattr("dropsearch.dropout.trial_control.draws", lambda _: on_device)
        noise, drawn = SeededNoise(11), []
        for noise.step in (0, 1, 2, 70, 3):
            drawn += [noise.bits(site, shape, CPU) for site, shape in SHAPES.items()]
        return drawn

    assert all(torch.equal(ours, theirs) for ours, theirs in zip(masks(True), masks(False), strict=True))
