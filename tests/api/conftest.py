from __future__ import annotations

from tests.experiment.conftest import _one_thread  # noqa: F401
