"""The header names what a run cannot find before it starts."""

from __future__ import annotations

import pytest

from dropsearch.config.compose import compose_overrides
from dropsearch.experiment.run_header import _too_few_seeds


@pytest.mark.parametrize(
    ("arms", "seeds", "needed"),
    [
        ("[none,dropout]", 5, 6),
        ("[none,dropout]", 6, None),
        ("[none,dropout,batchnorm,both]", 7, 8),
        ("[none,dropout,batchnorm,both,dropout_shared,typical]", 8, 10),
        ("[none,dropout,batchnorm,both,dropout_shared,typical]", 10, None),
        ("[dropout]", 1, None),
    ],
)
def test_too_few_seeds_are_named(arms: str, seeds: int, needed: int | None) -> None:
    found = [*_too_few_seeds(compose_overrides([f"arms={arms}", f"confirm.seeds={seeds}"]))]
    said = f"with {seeds} fresh seeds no difference between the arms can be shown: that takes confirm.seeds={needed}"
    assert found == ([said] if needed else [])
