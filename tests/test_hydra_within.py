"""What tests compose from files that were read before is what Hydra composes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dropsearch.config.compose import compose_overrides
from dropsearch.core.errors import InputError
from tests import hydra_within


def composed(words: Sequence[str]) -> str:
    try:
        return repr(compose_overrides(words))
    except InputError as error:
        return str(error)


@pytest.mark.parametrize(
    "words",
    [
        ("model=cnn", "data=mnist1d", "optimizer=sgd", "optimizer.momentum=0.3"),
        ("experiment=fashion_cnn", "study.n_trials=2"),
        ("engine=vectorised",),
        ("+model@other=cnn",),
        ("~evidence",),
    ],
)
def test_same_configuration(words: Sequence[str], monkeypatch: pytest.MonkeyPatch):
    found = [composed(words) for _ in range(2)]
    monkeypatch.setattr(hydra_within, "_is_ours", lambda _: False)
    assert found == [composed(words)] * 2


def test_no_override_stays():
    before = composed(())
    composed(("model.hidden=[7]", "study.n_trials=3", "optimizer=sgd", "model=mlp"))
    assert composed(()) == before
