"""What all tests of dropout share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def the_same_weights_each_time() -> None:
    """A net of five units may be dead by an unlucky draw of its weights."""
    torch.manual_seed(0)
